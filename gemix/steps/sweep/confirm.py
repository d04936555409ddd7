"""Train the best trials again on fresh seeds, choose the winner, and test it once."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gemix.classifier.bundle import Classifier
from gemix.config import PipelineConfig
from gemix.data.image_set import ImageSet
from gemix.data.leakage.overlap import OverlapReport
from gemix.data.leakage.provenance import write_provenance
from gemix.data.prepare.encoded_scan import preparation_settings
from gemix.data.shards.manifest import MANIFEST, Manifest, combine_content
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.evaluation.classification.bootstrap import compare_methods
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import RATES, score
from gemix.io.results import REAL, ClassifierRow, best_on_validation
from gemix.io.storage import Store
from gemix.io.sweep_record import CONFIRMED
from gemix.io.workspace import Workspace
from gemix.steps.runtime.classifier_training import train_into
from gemix.steps.runtime.executor import Executor
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.runtime.test_openings import count_opening
from gemix.steps.sweep.opening import Sweep, made_by_provenance, with_label_sources
from gemix.steps.sweep.trial import configured, training_images
from gemix.steps.synthesize import synthesize
from gemix.sweep.objective import Scores
from gemix.sweep.records import scores_to_json
from gemix.sweep.winner import Candidate, Gain, Retrained, candidates, choose_winner
from gemix.synthesis.cache import stored_digest
from gemix.tracking.mlflow_run import Run

log = logging.getLogger("gemix.sweep")


def confirm(sweep: Sweep, run: Run, executor: Executor) -> dict[str, Any] | None:
    """Choose a sweep's winner on fresh seeds, and test it beside real images alone.

    Seeds of the search were chosen with the trial, and so was the luck of its images: each training
    here has a seed and synthetic images that no trial had. The folds stay the same. The generator
    has learned from every training patient, so in another fold its images would give away those
    that are held out.

    Trainings that are there already are kept, so that a stopped confirmation goes on.

    Returns:
        `candidates` with their scores in the search and on fresh seeds, and why each won or lost;
        `winner`, with `overfitted`, its macro-F2 in the search less that on fresh seeds, and
        `classifier`, its training that is the best on validation; `real_only`, that of real images
        alone; `test`, rates of both with paired differences, and how often the test set was opened;
        None with ``sweep.fresh_seeds=0`` or without a complete trial.

    Raises:
        DataError: if a classifier, its generator or its teacher learned from the test set, and
            ``data.allow_overlap`` is not set.
    """
    config, workspace = sweep.config, sweep.workspace
    chosen = candidates(sweep.study.records())
    if not config.sweep.fresh_seeds or not chosen:
        return None
    overlap, learned = check_overlap(config, workspace), real_splits(workspace, "train", "val")
    write_provenance(
        Store(workspace.sweep) / CONFIRMED, learned, made_by_provenance(config, workspace)
    )
    normal = normal_class(sweep.training.classes, config.data.normal_class)
    jobs = [
        _Job(candidate, *sweep.settings(dict(candidate.params)), index)
        for candidate in chosen
        for index in range(config.sweep.fresh_seeds)
    ]
    run.set_tags(overlap.tags)
    train = functools.partial(
        _train, config=config.to_mapping(), workdir=workspace.workdir, run=run
    )
    found = list(
        executor.map(
            train,
            jobs,
            title="sweep, fresh seeds",
            unit="trainings",
            compute=dataclasses.replace(config.compute, workers=1),  # as a trial has it
        )
    )
    retrained = [
        _retrained(candidate, sweep.validation, rows, normal)
        for candidate, rows in zip(chosen, _in_parts(found, config.sweep.fresh_seeds), strict=True)
    ]
    winner, gains = choose_winner(
        retrained,
        sweep.validation.labels,
        sweep.validation.groups,
        classes=len(sweep.validation.classes),
        normal=normal,
        objective=sweep.study.objective,
    )
    confirmed = _describe(sweep, retrained, winner, gains)
    best = _best(workspace, winner.candidate, config.sweep.fresh_seeds)
    _write_images(config, workspace, next(job for job in jobs if job.name == best), executor)
    confirmed["winner"]["classifier"] = best
    confirmed["real_only"] = _best(workspace, chosen[0], config.sweep.fresh_seeds)
    confirmed["test"] = _test(config, workspace, winner.candidate, chosen[0], normal)
    confirmed["overlap"] = overlap.to_json()
    _log(run, confirmed)
    return confirmed


@dataclasses.dataclass(frozen=True)
class _Job:
    """One training: of a candidate, with its settings, on the fresh seed of this index."""

    candidate: Candidate
    settings: Mapping[str, Any]
    method: str | None
    index: int

    @property
    def name(self) -> str:
        """Name of the classifier's directory."""
        return _directory(self.candidate, self.index)

    def configured(self, config: PipelineConfig) -> PipelineConfig:
        """Return the configuration with its settings, and a seed of images that no trial had."""
        fresh = {"synthesis.seed": config.synthesis.seed + 1 + self.index}
        return configured(config, {**self.settings, **fresh})


def check_overlap(config: PipelineConfig, workspace: Workspace) -> OverlapReport:
    """Return what the test set shares with what classifiers, generator and teacher learn from.

    Raises:
        DataError: if it is anything, and ``data.allow_overlap`` is not set.
    """
    learned, val, test = real_splits(workspace, "train", "val", "test")
    made_by = made_by_provenance(with_label_sources(config, workspace), workspace)
    pairs = [(one, test) for one in (learned, val, *made_by)]
    return enforce_no_overlap("sweep", config, pairs)


def _train(job: _Job, *, config: Mapping[str, Any], workdir: str, run: Run) -> np.ndarray:
    """Train one classifier, or find it trained; return the classes of the validation images."""
    base, workspace = PipelineConfig.from_mapping(config), Workspace(workdir)
    changed = job.configured(base)
    torch.set_num_threads(changed.compute.cpus_per_worker)
    with sealed("test"):
        real, validation = (read_images([workspace.data], split) for split in ("train", "val"))
    images = training_images(changed, workspace, job.method, real)
    images = dataclasses.replace(images, digest=stored_digest(images))
    classifier = dataclasses.replace(
        changed.classifier,
        seeds=1,
        seed=base.classifier.seed + base.sweep.seeds + job.index,
        epoch_images=changed.classifier.epoch_images or len(real),
    )
    store = Store(workspace.sweep) / f"{CONFIRMED}/{job.name}"
    train_into(
        store,
        images,
        validation,
        classifier,
        name=job.name,
        method=job.method or REAL,
        step="sweep",
        run=run,
        normal=changed.data.normal_class,
        real_images=len(real),
        preprocessing=preparation_settings(Manifest.load(Store(workspace.data))),
        allow_overlap=changed.data.allow_overlap,
        decision=changed.decision,
    )
    return Classifier.load(store).logits(validation.images).argmax(axis=1)


def _directory(candidate: Candidate, index: int) -> str:
    return f"{candidate.name.replace(' ', '-')}-{index}"


def _best(workspace: Workspace, candidate: Candidate, seeds: int) -> str:
    """Return the directory of the candidate's training that is the best on validation."""
    rows = []
    for index in range(seeds):
        name = _directory(candidate, index)
        found = Classifier.load(Store(workspace.sweep) / f"{CONFIRMED}/{name}")
        rows.append(
            ClassifierRow(
                name=name, method=found.method, seed=found.config.seed, scores=found.validation
            )
        )
    return best_on_validation(rows).name


def _write_images(
    config: PipelineConfig, workspace: Workspace, job: _Job, executor: Executor
) -> None:
    """Write the synthetic images of a training as a set, which can be audited, if it has any.

    A set that is there already, with its audit, is kept if it is the same.
    """
    store = Store(workspace.sweep_winner)
    if job.method is None:
        store.clear(MANIFEST)
        return
    if store.exists(MANIFEST):
        real, made = Manifest.load(Store(workspace.data)), Manifest.load(store)
        parts = [one.content_digest("train") for one in (real, made)]
        trained = Classifier.load(Store(workspace.sweep) / f"{CONFIRMED}/{job.name}")
        if combine_content(parts) == trained.training_digest:
            return
        store.clear(MANIFEST)
    synthesize(
        job.configured(config),
        workspace,
        methods=[job.method],
        into=lambda _: workspace.sweep_winner,
        executor=executor,
        overwrite=True,
    )


def _in_parts(rows: Sequence[np.ndarray], size: int) -> list[Sequence[np.ndarray]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _retrained(
    candidate: Candidate, validation: ImageSet, rows: Sequence[np.ndarray], normal: int | None
) -> Retrained:
    def scores(predicted: np.ndarray) -> Scores:
        found = score(validation.labels, predicted, len(validation.classes), normal)
        return Scores.of_row({f"val_{name}": value for name, value in found.items()})

    return Retrained(
        candidate=candidate, predicted=np.stack(rows), scores=tuple(scores(row) for row in rows)
    )


def _describe(
    sweep: Sweep, retrained: Sequence[Retrained], winner: Retrained, gains: Mapping[str, Gain]
) -> dict[str, Any]:
    """Return the candidates and the winner as plain values."""

    def row(one: Retrained) -> dict[str, Any]:
        gain, candidate = gains.get(one.candidate.name), one.candidate
        settings, method = sweep.settings(dict(candidate.params))
        outcome = "wins" if one is winner else (gain and gain.reason) or "replaced"
        return {
            "name": candidate.name,
            "trial": candidate.trial,
            "method": method or REAL,
            "settings": dict(settings),
            "searched": scores_to_json(candidate.searched),
            "fresh": scores_to_json(one.fresh),
            "fresh_by_seed": [scores_to_json(score) for score in one.scores],
            "gain": None if gain is None else dataclasses.asdict(gain),
            "outcome": outcome,
        }

    overfitted = winner.candidate.searched.macro_f2 - winner.fresh.macro_f2
    rows = {one.candidate.name: row(one) for one in retrained}
    won = rows[winner.candidate.name] | {"overfitted": overfitted}
    return {"candidates": list(rows.values()), "winner": won}


def _test(
    config: PipelineConfig,
    workspace: Workspace,
    winner: Candidate,
    reference: Candidate,
    normal: int | None,
) -> dict[str, Any]:
    """Return the rates of both on the test set, predicted once."""
    test = read_images([workspace.data], "test")
    openings = count_opening(workspace, "sweep", test.digest)
    tested = {REAL: reference} | ({} if winner is reference else {winner.name: winner})
    store = Store(workspace.sweep) / CONFIRMED

    def predicted(candidate: Candidate, index: int) -> np.ndarray:
        # the most probable classes, by which the winner was chosen, whatever decision.rule says
        classifier = Classifier.load(store / _directory(candidate, index))
        return classifier.predict(test.images).argmax(axis=1)

    predictions = {
        name: np.stack([predicted(one, index) for index in range(config.sweep.fresh_seeds)])
        for name, one in tested.items()
    }
    compared = compare_methods(
        test.labels, predictions, test.groups, classes=len(test.classes), normal=normal
    )
    return {
        "images": len(test),
        "groups": len(set(test.groups)),
        "digest": test.digest,
        "openings": openings,
        "seeds": config.sweep.fresh_seeds,
        "results": {
            name: {rate: found.rates.get(rate) for rate in RATES}
            | {
                "intervals": {rate: list(ends) for rate, ends in found.intervals.items()},
                "difference_to_real": {
                    rate: dataclasses.asdict(one) for rate, one in found.differences.items()
                },
            }
            for name, found in compared.items()
        },
    }


def _log(run: Run, confirmed: Mapping[str, Any]) -> None:
    winner, results = confirmed["winner"], confirmed["test"]["results"]
    run.set_tags({"gemix.winner": winner["name"]})
    run.log_metrics({"winner/overfitted": winner["overfitted"]})
    for name, row in results.items():
        run.log_metrics({f"test/{name.replace(' ', '-')}/{rate}": row[rate] for rate in RATES})
