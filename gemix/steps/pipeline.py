"""Run all steps, prepare to report, in one process."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from gemix.classifier.models import check_model
from gemix.classifier.optimizer import check_optimizer
from gemix.config import STEP_SECTIONS, PipelineConfig, steps_to_redo
from gemix.core.errors import AlreadyFinishedError, CheckpointError, ConfigError, DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.gan.checkpoints.generator_io import MARKER as GENERATOR
from gemix.io.audit_record import AUDIT, PASSED
from gemix.io.records import to_json
from gemix.io.results import (
    CLASSIFIERS,
    EVALUATION,
    STEPS,
    SUMMARY,
    read_evaluation,
    read_steps,
    read_training,
)
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.sections.privacy_audit import audit_parts
from gemix.steps.evaluate import evaluate
from gemix.steps.prepare import prepare
from gemix.steps.report import PAGE, build_report
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import CONFIG, clear_step
from gemix.steps.sets.audit import audit_set
from gemix.steps.synthesize import synthesize
from gemix.steps.train_classifier import train_classifiers
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.class_weights import validation_counts
from gemix.synthesis.teacher import TEACHER

log = logging.getLogger("gemix.pipeline")

_MARKER_ALONE = ("train-teacher", "audit", "train-classifier")
"""Steps of which the marker alone is deleted: classifiers of unchanged settings are kept, and an
audit lies in the directory of its set."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step of the pipeline: what it is, its directory, the marker of a finished one, its body.

    Attributes:
        step: its name in ``STEP_SECTIONS``.
        method: of the one synthetic set that it is about, None for all.
    """

    step: str
    url: str
    marker: str
    run: Callable[..., object]
    method: str | None = None

    @property
    def name(self) -> str:
        """Name in the log and in ``summary.json``."""
        return self.step if self.method is None else f"{self.step}-{self.method}"

    @property
    def finished(self) -> bool:
        """Return whether its marker is there."""
        return Store(self.url).exists(self.marker)


def run_pipeline(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
    redo: bool = False,
    until: str | None = None,
) -> dict[str, Any]:
    """Run every step that is not finished yet; a stopped pipeline resumes where it was.

    With a generator of another site (``synthesis.generator``) none is trained, and with its teacher
    (``synthesis.teacher``) no teacher.

    Settings may change between the attempts. Those that change no result (``compute``,
    ``tracking`` and others that ``gemix config`` marks) always may, and so may those of steps that
    are not finished.

    Args:
        overwrite: start over with all steps.
        redo: start over with the finished steps whose settings have changed and with those that
            read their results, and keep the others.
        until: the last step to run, a name of ``STEP_SECTIONS``; None for all of them.

    Returns:
        The content of ``summary.json``; empty where `until` ends it before all steps have run.

    Raises:
        AlreadyFinishedError: if the work directory holds a finished pipeline, or finished steps of
            other settings, and neither `overwrite` nor `redo` is set.
        ConfigError: for a classifier that cannot take the images, or an unknown optimizer.
        CheckpointError: if ``labels.recall_of`` names no classifier.
    """
    executor = executor or LocalExecutor()
    for settings in (config.teacher, config.classifier):
        check_optimizer(settings.optimizer)
        check_model(
            settings.model,
            channels=len(config.data.windows),
            resolution=config.data.resolution,
            augment=settings.augment,
        )
    steps = _steps(config, workspace)
    sets_are_made = (
        overwrite or redo or not all(step.finished for step in steps if step.step == "synthesize")
    )
    if config.labels.recall_of is not None and sets_are_made:
        validation_counts(config.labels)
    store = _claim(config, workspace, steps, overwrite, redo)
    seconds = read_steps(store)
    order = list(STEP_SECTIONS)
    for step in steps:
        if until is not None and order.index(step.step) > order.index(until):
            return {}
        if step.finished:
            log.info("%s: finished already", step.name)
            continue
        started = time.monotonic()
        step.run(config, workspace, executor=executor)
        seconds[step.name] = round(time.monotonic() - started, 1)
        log.info("%s: done in %.1f s", step.name, seconds[step.name])
        store.write_json(STEPS, seconds)
    summary = summarize(config, workspace, seconds)
    store.write_json(SUMMARY, summary)
    return summary


def _steps(config: PipelineConfig, workspace: Workspace) -> list[_Step]:
    methods = config.synthesis.methods

    def each(step: str, marker: str, run: Callable[..., object]) -> list[_Step]:
        return [
            _Step(
                step, workspace.synthetic(one), marker, functools.partial(run, methods=[one]), one
            )
            for one in methods
        ]

    steps = [_Step("prepare", workspace.data, MANIFEST, prepare)]
    if config.synthesis.teacher is None:
        steps.append(_Step("train-teacher", workspace.teacher, TEACHER, train_teachers))
    if config.synthesis.generator is None:
        steps.append(_Step("train-gan", workspace.gan, GENERATOR, train_gan))
    return [
        *steps,
        *each("synthesize", MANIFEST, synthesize),
        *(each("audit", AUDIT, _audit) if config.audit.in_pipeline else ()),
        _Step("train-classifier", workspace.classifiers, CLASSIFIERS, train_classifiers),
        _Step("evaluate", workspace.evaluation, EVALUATION, evaluate),
        _Step("report", workspace.report, PAGE, build_report),
    ]


def _audit(
    config: PipelineConfig, workspace: Workspace, *, methods: Sequence[str], executor: Executor
) -> None:
    """Audit sets in this process. No verdict ends the pipeline: promotion is what refuses a set.

    Nor does an extractor that cannot be opened, which ends no training of a GAN either.
    """
    del executor
    for method in methods:
        try:
            audit = audit_set(config, workspace, method)
        except (ConfigError, CheckpointError) as error:
            log.warning("the %s images are not audited: %s", method, error)
            continue
        level = logging.INFO if audit.verdict == PASSED else logging.WARNING
        reasons = "; ".join(audit.reasons)
        log.log(level, "privacy audit of the %s images: %s: %s", method, audit.verdict, reasons)


def summarize(
    config: PipelineConfig, workspace: Workspace, seconds: dict[str, float]
) -> dict[str, Any]:
    """Return the results of a finished pipeline, from what its steps have written."""
    data = Manifest.load(Store(workspace.data))
    evaluation = read_evaluation(Store(workspace.evaluation))
    synthetic = {m: Manifest.load(Store(workspace.synthetic(m))) for m in config.synthesis.methods}
    return {
        "data": {
            "images": data.images(),
            "classes": list(data.classes),
            "splits": {split: sum(counts.values()) for split, counts in data.counts.items()},
            "counts": data.counts,
            "quarantined": data.origin["quarantined"],
            "digest": data.digest,
        },
        "gan": to_json(read_training(Store(workspace.gan)))
        if config.synthesis.generator is None
        else None,
        "synthetic": {
            "images": sum(manifest.images() for manifest in synthetic.values()),
            "per_method": {method: manifest.images() for method, manifest in synthetic.items()},
        },
        "audits": {
            part.method: {"verdict": part.verdict, "reasons": list(part.reasons)}
            for part in audit_parts(
                workspace, {m: workspace.synthetic(m) for m in synthetic}, config.audit
            )
        },
        "results": to_json(evaluation.results),
        "teacher": to_json(evaluation.teacher),
        "registered_model": to_json(evaluation.registered_model),
        "wall_seconds": seconds,
    }


def _claim(
    config: PipelineConfig, workspace: Workspace, steps: list[_Step], overwrite: bool, redo: bool
) -> Store:
    """Open the work directory for these settings and clear what is to be run again."""
    store = Store(workspace.workdir)
    if overwrite:
        store.delete(SUMMARY)
        store.delete(STEPS)
        for url, marker in _outputs(workspace):
            clear_step(url, marker)
    resumed = not overwrite and store.exists(CONFIG)
    changed = config.changed_since(_earlier_settings(store)) if resumed else []
    run = [step.step for step in steps]
    stale = [step for step in steps if step.finished and _is_stale(step, changed, run)]
    if stale and not redo:
        raise AlreadyFinishedError(
            f"{store.url}: {', '.join(step.name for step in stale)} finished with other settings "
            f"({', '.join(changed)} changed; {CONFIG} has the earlier ones). Repeat those to go "
            "on, pass --redo to run these steps again and keep the others, or choose another "
            "--workdir"
        )
    if store.exists(SUMMARY) and not stale:
        raise AlreadyFinishedError(
            f"{store.url}: holds a finished pipeline; pass --overwrite to run it again, or "
            "choose another --workdir"
        )
    for step in stale:
        log.info("%s: runs again, since %s changed", step.name, ", ".join(changed))
        if step.step in _MARKER_ALONE:
            Store(step.url).delete(step.marker)
        else:
            clear_step(step.url, step.marker)
    store.delete(SUMMARY)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    return store


def _is_stale(step: _Step, changed: list[str], run: Sequence[str]) -> bool:
    """Return whether changed settings make the result of a step out of date."""
    if step.method is not None:
        # a set does not depend on which other sets there are
        changed = [path for path in changed if path != "synthesis.methods"]
    return step.step in steps_to_redo(changed, run)


def _earlier_settings(store: Store) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(store.read_bytes(CONFIG))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        settings = error
    if not isinstance(settings, Mapping):
        raise DataError(
            f"{store.url}/{CONFIG}: no configuration ({settings}); restore it, or pass --overwrite "
            "to start over"
        )
    return settings


def _outputs(workspace: Workspace) -> list[tuple[str, str]]:
    """Return directories and markers of all that a pipeline of any methods may have left."""
    names = Store(f"{workspace.workdir}/synthetic").list(recursive=True)
    methods = sorted({name.split("/")[0] for name in names})
    return [
        (workspace.data, MANIFEST),
        (workspace.teacher, TEACHER),
        (workspace.gan, GENERATOR),
        *((workspace.synthetic(method), MANIFEST) for method in methods),
        (workspace.classifiers, CLASSIFIERS),
        (workspace.evaluation, EVALUATION),
        (workspace.report, PAGE),
    ]
