"""Compare methods of training under one protocol: train, predict, test once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemix.comparison.method import HELD_BACK, REPEATED, Method
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import Block, Unit, plan, units_of
from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError, GemixError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.evaluation.classification.bootstrap import warn_of_few_groups
from gemix.evaluation.classification.normal_class import describe_normal_class, normal_class
from gemix.io.comparison_record import COMPARISON
from gemix.io.records import to_json
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.blocks import TrainedBlock
from gemix.steps.compare.folds import pooled_results
from gemix.steps.compare.generators import make_sets, plan_generators, sets_of_work_directory
from gemix.steps.compare.images import ordered_digest
from gemix.steps.compare.runs import log_trainings
from gemix.steps.compare.scoring import UnitScorer, predictions_name
from gemix.steps.compare.sets import (
    SetDirectories,
    find_sets,
    generator_patients,
    source_of,
    titles_of,
)
from gemix.steps.compare.tables import block_files, paper_files
from gemix.steps.compare.training import Trained, UnitTrainer, validation_probabilities
from gemix.steps.compare.worth import worth_of
from gemix.steps.runtime.classifier_training import check_training
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import CONFIG, clear_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.runtime.test_openings import count_opening, describe_test
from gemix.steps.runtime.training_sets import without_passed_audit
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run

log = logging.getLogger("gemix.compare")


def compare(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train each method as often as the settings say, then predict the test images once.

    Trainings that an earlier run has finished are kept: a stopped comparison goes on, and a method
    that is added is trained alone. A training that fails is told in the table; the others go on.

    Returns:
        What ``comparison.json`` holds: `blocks`, one for each model and fraction of the patients,
        with the methods, their rates, differences and findings; `test`, what they were tested on;
        `test_openings`, how often this test set was predicted in the work directory.

    Raises:
        ConfigError: for settings that do not fit the data or each other.
        DataError: for missing or unfit sets, or images that are both learned and held out.
        GemixError: if a training of the baseline failed in every block.
    """
    settings = config.compare
    if settings.folds:
        return _pool(config, workspace)
    real = Manifest.load(Store(workspace.data))
    planned = plan(settings, config.classifier.model, config.classifier.seed)
    generators = plan_generators(config, workspace, planned)
    found = _check(config, workspace, real)
    given = [source_of(name, url) for name, urls in found.items() for url in urls]
    learned, val, test_split = real_splits(workspace, "train", "val", "test")
    pairs = itertools.product([learned, *given], [val, test_split])
    overlap = enforce_no_overlap("compare", config, [*pairs, (val, test_split)])
    unaudited = without_passed_audit(config, workspace, titles_of(found), log)
    patients = _training_patients(workspace, real)
    _check_draws(config, patients, planned, real.classes)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    if overwrite:
        clear_step(workspace.comparison, COMPARISON)
    store = Store(workspace.comparison)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    sets = make_sets(config, workspace, found, generators, patients, executor)
    added = [source_of(name, url) for name, url in sets.all()]
    more = [source for source in added if isinstance(source, Split)]
    learned_from = [source for source in added if isinstance(source, Provenance)]
    write_provenance(store, [learned, val, *more], learned_from)
    normal = normal_class(real.classes, config.data.normal_class)
    log.info(describe_normal_class(real.classes, normal))
    with tracking.start_run(config, workspace.workdir, "compare") as run:
        run.set_tags(overlap.tags | {f"gemix.audit.{name}": why for name, why in unaudited.items()})
        with sealed("test"):
            trained = _train(config, workspace, executor, units_of(planned), sets)
            validation = read_images([workspace.data], "val")
        known = {
            row.address: validation_probabilities(store, row)
            for row in trained.values()
            if row.failure is None
        }
        blocks = [TrainedBlock.of(settings, block, trained, known) for block in planned]
        if all(block.failure for block in blocks):
            raise GemixError(f"nothing can be compared: {blocks[0].failure}")
        detectable = [block.detectable(validation, normal) for block in blocks]
        for block, difference in zip(blocks, detectable, strict=True):
            _log_power(block, difference, len(set(validation.groups)))
        openings = count_opening(workspace, "compare", real.content_digest("test"))
        predictions = _score(config, workspace, executor, list(known))
        test = read_images([workspace.data], "test")
        tested = describe_test(test, normal)
        if warning := warn_of_few_groups(tested.groups_by_class):
            log.warning(warning)
        results = {
            "baseline": settings.baseline,
            "budget": settings.budget,
            "blocks": [
                _describe(block, difference)
                | {
                    "methods": []
                    if block.failure
                    else block.results(
                        validation,
                        test,
                        predictions,
                        normal,
                        generator_patients(sets, block.block.fraction, patients[1]),
                    )
                }
                for block, difference in zip(blocks, detectable, strict=True)
            ],
            "test": to_json(tested),
            "test_openings": openings,
            "predictions_file": predictions_name(ordered_digest(workspace.data, "test")),
            "overlap": overlap.to_json(),
        }
        results["worth"] = worth_of(results["blocks"], settings.baseline)
        _write(store, results, run)
        log_trainings(run, workspace, trained, predictions, test, normal)
    return results


def _pool(config: PipelineConfig, workspace: Workspace) -> dict[str, Any]:
    """Pool the finished comparisons of ``compare.folds``; nothing is trained."""
    if workspace in map(Workspace.at, config.compare.folds):
        raise ConfigError(
            f"compare.folds: {workspace.workdir} is one of them, whose results would be replaced; "
            "name another --workdir"
        )
    results = pooled_results(config)
    store = Store(workspace.comparison)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    with tracking.start_run(config, workspace.workdir, "compare") as run:
        _write(store, results, run)
    return results


def _check(
    config: PipelineConfig, workspace: Workspace, real: Manifest
) -> dict[str, tuple[str, ...]]:
    """Check what can be checked before anything runs.

    Returns:
        The directories of the sets that need not be made by name, one a generator.
    """
    settings = config.compare
    if config.classifier.early_stopping is not None:
        raise ConfigError(
            f"classifier.early_stopping={config.classifier.early_stopping}: a comparison gives all "
            "methods the same budget; set it to null"
        )
    methods = [Method.parse(name) for name in settings.methods]
    by_augment = {c.augment: c for c in (m.configured(config.classifier) for m in methods)}
    for model in settings.models or (config.classifier.model,):
        for classifier in by_augment.values():
            chosen = dataclasses.replace(classifier, model=model)
            check_training(chosen, real, workers=1, normal=config.data.normal_class)
    if config.classifier.seed + settings.seeds > 2**32:
        raise ConfigError(f"compare.seeds={settings.seeds}: too many after classifier.seed")
    kinds: dict[Any, str] = {}
    for method in methods:
        same = kinds.setdefault(method.trains_as(config.classifier), method.name)
        if same != method.name:
            raise ConfigError(
                f"compare.methods: {method.name!r} trains as {same!r} does; leave one out"
            )
    sets = find_sets(config, workspace, sets_of_work_directory(config, workspace), real, log)
    if any(method.images == HELD_BACK for method in methods) and 1 in settings.fractions:
        raise ConfigError(
            "compare.methods: 'held-back' adds images of the patients that a draw leaves out, and "
            "compare.fractions has 1, which leaves out nobody; take it out of the fractions"
        )
    if any(method.images == REPEATED for method in methods):
        if settings.budget == "steps":
            raise ConfigError(
                "compare.methods: with compare.budget=steps 'repeated' trains as 'real' does; "
                "leave it out, or set compare.budget=exposures"
            )
        if not settings.synthetic_sets:
            raise ConfigError(
                "compare.methods: 'repeated' shows real images as often as with a synthetic set, "
                "and there is none among them; add one, or leave it out"
            )
    return sets


def _training_patients(workspace: Workspace, real: Manifest) -> tuple[np.ndarray, list[str]]:
    """Return the class, int64 [N], and the patient of each real training image."""
    store, labels, groups = Store(workspace.data), [], []
    for shard in real.shards_of("train"):
        table = store.read_columns(shard.name, ["class_index", "patient"])
        labels.append(table["class_index"].to_numpy().astype(np.int64))
        groups += table["patient"].to_pylist()
    return np.concatenate(labels), groups


def _check_draws(
    config: PipelineConfig,
    patients: tuple[np.ndarray, list[str]],
    blocks: Sequence[Block],
    classes: Sequence[str],
) -> None:
    """Refuse draws of patients that are equal: they would count as several and vary by nothing."""
    labels, groups = patients
    for block in blocks:
        if block.fraction == 1:
            continue
        draws = {
            draw_patients(
                labels,
                groups,
                fraction=block.fraction,
                draw=draw,
                seed=config.compare.seed,
                classes=classes,
            ).tobytes()
            for draw in range(block.draws)
        }
        whole = len(groups) * labels.itemsize
        if len(draws) < block.draws or any(len(draw) == whole for draw in draws):
            raise ConfigError(
                f"compare.fractions: {block.fraction:g} of {len(set(groups))} training patients "
                f"gives {len(draws)} different draw(s) of {block.draws}, or all patients; choose "
                "another fraction or fewer compare.draws"
            )


def _train(
    config: PipelineConfig,
    workspace: Workspace,
    executor: Executor,
    units: Sequence[Unit],
    sets: SetDirectories,
) -> dict[Unit, Trained]:
    build = functools.partial(
        UnitTrainer, config.to_mapping(), workspace.comparison, workspace.data, sets
    )
    made_of = {unit: Method.parse(unit.method).synthetic for unit in units}
    failed = {
        unit: Trained(failure=sets.failures[name])
        for unit, name in made_of.items()
        if name in sets.failures
    }
    rest = [unit for unit in units if unit not in failed]
    return failed | _map(config, executor, build, rest, "compare", "trainings")


def _score(
    config: PipelineConfig, workspace: Workspace, executor: Executor, addresses: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the test predictions by address, float32 [N, K] each."""
    build = functools.partial(
        UnitScorer,
        workspace.comparison,
        workspace.data,
        config.compute.cpus_per_worker,
        config.compare.keep_weights,
    )
    return _map(config, executor, build, addresses, "test", "classifiers")


def _map(
    config: PipelineConfig,
    executor: Executor,
    build: Callable[[], Callable[[Any], Any]],
    inputs: Sequence[Any],
    title: str,
    unit: str,
) -> dict[Any, Any]:
    found = executor.map_with_state(
        build,
        inputs,
        title=title,
        unit=unit,
        compute=config.compute,
        weights=[1] * len(inputs),
    )
    return dict(zip(inputs, found, strict=True))


def _log_power(block: TrainedBlock, difference: float | None, patients: int) -> None:
    if difference is not None:
        log.info(
            "%s, fraction %g: %d validation patients and %d trainings a method would show a "
            "difference of %.3f in macro-F2 with 80%% power; the test split is opened now",
            *(block.block.model, block.block.fraction, patients),
            *(len(block.methods[block.config.baseline]), difference),
        )


def _describe(block: TrainedBlock, detectable: float | None) -> dict[str, Any]:
    """Return what the methods of a block have in common."""
    rows = [row for rows in block.methods.values() for row in rows if row.failure is None]
    return {
        "model": block.block.model,
        "fraction": block.block.fraction,
        "patients": rows[0].patients if rows else 0,
        "images": rows[0].real_images if rows else 0,
        "draws": block.block.draws,
        "seeds": block.config.seeds,
        "detectable": detectable,
        "failure": block.failure,
    }


def _write(store: Store, results: dict[str, Any], run: Run) -> None:
    """Write and log tables and results, ``comparison.json`` last."""
    files = paper_files(results)
    for block in results["blocks"]:
        name = f"{block['model']}-{block['fraction']:g}"
        files |= {f"{name}.{ending}": text for ending, text in block_files(block).items()}
        for method in block["methods"]:
            if method["failure"] is None:
                prefix = f"{name}/{method['method']}".replace("+", "_")
                run.log_metrics({f"{prefix}/{r}": value for r, value in method["rates"].items()})
    for name, text in files.items():
        store.write_bytes(f"tables/{name}", text.encode())
        run.log_text(text, f"tables/{name}")
    store.write_json(COMPARISON, results)
