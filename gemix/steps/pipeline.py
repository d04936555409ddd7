"""Run all steps, prepare to report, in one process."""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.gan.checkpoints.generator_io import MARKER as GENERATOR
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.evaluate import EVALUATION, evaluate
from gemix.steps.executor import Executor, LocalExecutor
from gemix.steps.outputs import CONFIG, clear_step
from gemix.steps.prepare import prepare
from gemix.steps.report import PAGE, build_report
from gemix.steps.synthesize import synthesize
from gemix.steps.train_classifier import CLASSIFIERS, train_classifiers
from gemix.steps.train_gan import train_gan

log = logging.getLogger("gemix.pipeline")

SUMMARY, STEPS = "summary.json", "steps.json"


def run_pipeline(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Run every step that is not finished yet; a stopped pipeline resumes where it was.

    Returns:
        What ``summary.json`` holds.

    Raises:
        AlreadyFinishedError: if the work directory holds a finished pipeline, or one of other
            settings, and `overwrite` is not set.
    """
    executor = executor or LocalExecutor()
    store = _claim(config, workspace, overwrite)
    seconds = store.read_json(STEPS) if store.exists(STEPS) else {}
    steps = {
        "prepare": (workspace.data, MANIFEST, prepare),
        "train-gan": (workspace.gan, GENERATOR, train_gan),
        **{
            f"synthesize-{method}": (workspace.synthetic(method), MANIFEST, _synthesize_one(method))
            for method in config.synthesis.methods
        },
        "train-classifier": (workspace.classifiers, CLASSIFIERS, train_classifiers),
        "evaluate": (workspace.evaluation, EVALUATION, evaluate),
        "report": (workspace.report, PAGE, build_report),
    }
    for name, (url, marker, run) in steps.items():
        if Store(url).exists(marker):
            log.info("%s: finished already", name)
            continue
        started = time.monotonic()
        run(config, workspace, executor=executor)
        seconds[name] = round(time.monotonic() - started, 1)
        log.info("%s: done in %.1f s", name, seconds[name])
        store.write_json(STEPS, seconds)
    summary = summarize(config, workspace, seconds)
    store.write_json(SUMMARY, summary)
    return summary


def summarize(
    config: PipelineConfig, workspace: Workspace, seconds: dict[str, float]
) -> dict[str, Any]:
    """The figures of a finished pipeline, out of what its steps have written."""
    data = Manifest.load(Store(workspace.data))
    evaluation = Store(workspace.evaluation).read_json(EVALUATION)
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
        "gan": Store(workspace.gan).read_json("training.json"),
        "synthetic": {
            "images": sum(manifest.images() for manifest in synthetic.values()),
            "per_method": {method: manifest.images() for method, manifest in synthetic.items()},
        },
        "results": evaluation["results"],
        "registered_model": evaluation["registered_model"],
        "wall_seconds": seconds,
    }


def _claim(config: PipelineConfig, workspace: Workspace, overwrite: bool) -> Store:
    """The work directory, emptied, new, or of an unfinished run of the same settings."""
    store = Store(workspace.workdir)
    if overwrite:
        store.delete(SUMMARY)
        store.delete(STEPS)
        for url, marker in _outputs(workspace):
            clear_step(url, marker)
    elif store.exists(SUMMARY):
        raise AlreadyFinishedError(
            f"{store.url}: holds a finished pipeline; pass --overwrite to run it again, or "
            "choose another --workdir"
        )
    settings = config.to_yaml().encode()
    if not overwrite and store.exists(CONFIG) and not _same(store.read_bytes(CONFIG), settings):
        raise AlreadyFinishedError(
            f"{store.url}: holds an unfinished pipeline of other settings ({CONFIG}); repeat "
            "those to go on with it, pass --overwrite to start over, or choose another --workdir"
        )
    store.write_bytes(CONFIG, settings)
    return store


def _same(settings: bytes, others: bytes) -> bool:
    """Whether an unfinished pipeline may go on: a refused overlap may be allowed on the way."""
    one, other = (re.sub(rb"allow_overlap: \w+", b"", text) for text in (settings, others))
    return one == other


def _outputs(workspace: Workspace) -> list[tuple[str, str]]:
    """Directories and markers of everything that a pipeline of any methods may have left."""
    names = Store(f"{workspace.workdir}/synthetic").list(recursive=True)
    methods = sorted({name.split("/")[0] for name in names})
    return [
        (workspace.data, MANIFEST),
        (workspace.gan, GENERATOR),
        *((workspace.synthetic(method), MANIFEST) for method in methods),
        (workspace.classifiers, CLASSIFIERS),
        (workspace.evaluation, EVALUATION),
        (workspace.report, PAGE),
    ]


def _synthesize_one(method: str) -> Callable[..., object]:
    return functools.partial(synthesize, methods=[method])
