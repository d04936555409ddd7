"""The whole path in one process: prepare to report, each step a job of its own."""

from __future__ import annotations

import re
import sys
import time
from typing import Any

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.gan.checkpoints.generator_io import MARKER as GENERATOR
from gemix.io.storage import Store
from gemix.io.workspace import Layout
from gemix.steps.outputs import CONFIG, clear_step
from jobs._runtime.command import Command, Request
from jobs.evaluate import EVALUATION, evaluate
from jobs.prepare import prepare
from jobs.report import PAGE, build_report
from jobs.synthesize import synthesize
from jobs.train_classifier import CLASSIFIERS, train_classifiers
from jobs.train_gan import train_gan

SUMMARY, STEPS = "summary.json", "steps.json"


def run_pipeline(
    config: PipelineConfig, layout: Layout, *, overwrite: bool = False
) -> dict[str, Any]:
    """Runs every step that is not finished yet; a stopped pipeline goes on where it was.

    Returns:
        What ``summary.json`` holds.

    Raises:
        AlreadyFinishedError: if the work directory holds a finished pipeline, or one of other
            settings, and `overwrite` is not set.
    """
    store = _claim(config, layout, overwrite)
    seconds = store.read_json(STEPS) if store.exists(STEPS) else {}
    steps = {
        "prepare": (layout.data, MANIFEST, prepare),
        "train-gan": (layout.gan, GENERATOR, train_gan),
        **{
            f"synthesize-{method}": (layout.synthetic(method), MANIFEST, _synthesize_one(method))
            for method in config.synthesis.methods
        },
        "train-classifier": (layout.classifiers, CLASSIFIERS, train_classifiers),
        "evaluate": (layout.evaluation, EVALUATION, evaluate),
        "report": (layout.report, PAGE, build_report),
    }
    for name, (url, marker, run) in steps.items():
        if Store(url).exists(marker):
            print(f"{name}: finished already", flush=True)
            continue
        started = time.monotonic()
        run(config, layout)
        seconds[name] = round(time.monotonic() - started, 1)
        print(f"{name}: done in {seconds[name]} s", flush=True)
        store.write_json(STEPS, seconds)
    summary = summarize(config, layout, seconds)
    store.write_json(SUMMARY, summary)
    return summary


def summarize(config: PipelineConfig, layout: Layout, seconds: dict[str, float]) -> dict[str, Any]:
    """The figures of a finished pipeline, out of what its steps have written."""
    data = Manifest.load(Store(layout.data))
    evaluation = Store(layout.evaluation).read_json(EVALUATION)
    synthetic = {m: Manifest.load(Store(layout.synthetic(m))) for m in config.synthesis.methods}
    return {
        "data": {
            "images": data.images(),
            "classes": list(data.classes),
            "splits": {split: sum(counts.values()) for split, counts in data.counts.items()},
            "counts": data.counts,
            "quarantined": data.origin["quarantined"],
            "digest": data.digest,
        },
        "gan": Store(layout.gan).read_json("training.json"),
        "synthetic": {
            "images": sum(manifest.images() for manifest in synthetic.values()),
            "per_method": {method: manifest.images() for method, manifest in synthetic.items()},
        },
        "results": evaluation["results"],
        "registered_model": evaluation["registered_model"],
        "wall_seconds": seconds,
    }


def _claim(config: PipelineConfig, layout: Layout, overwrite: bool) -> Store:
    """The work directory, emptied, new, or of an unfinished run of the same settings."""
    store = Store(layout.workdir)
    if overwrite:
        store.delete(SUMMARY)
        store.delete(STEPS)
        for url, marker in _outputs(layout):
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


def _outputs(layout: Layout) -> list[tuple[str, str]]:
    """Directories and markers of everything that a pipeline of any methods may have left."""
    names = Store(f"{layout.workdir}/synthetic").list(recursive=True)
    methods = sorted({name.split("/")[0] for name in names})
    return [
        (layout.data, MANIFEST),
        (layout.gan, GENERATOR),
        *((layout.synthetic(method), MANIFEST) for method in methods),
        (layout.classifiers, CLASSIFIERS),
        (layout.evaluation, EVALUATION),
        (layout.report, PAGE),
    ]


def _synthesize_one(method: str):
    return lambda config, layout: synthesize(config, layout, methods=[method])


def _run(request: Request) -> None:
    summary = run_pipeline(request.config, request.layout, overwrite=request.overwrite)
    say(summary, request.layout)


def say(summary: dict[str, Any], layout: Layout) -> None:
    """Prints the table of results and where to read on."""
    print(f"\n{'method':<18}{'macro-F2':>10}{'FNR':>8}{'macro-F1':>10}{'accuracy':>10}")
    for row in summary["results"]:
        print(
            f"{row['method']:<18}{row['macro_f2']:>10.3f}{row['fnr']:>8.3f}"
            f"{row['macro_f1']:>10.3f}{row['accuracy']:>10.3f}"
        )
    total = sum(summary["wall_seconds"].values())
    print(f"\nreport: {layout.report}/{PAGE}\nsummary: {layout.workdir}/{SUMMARY} ({total:.0f} s)")


COMMAND = Command(
    name="pipeline",
    summary="The whole path: prepare, train-gan, synthesize, train-classifier, evaluate, report.",
    reads="what the configuration names as data.path",
    writes="<workdir>: a directory a step, summary.json, report/report.html, mlflow.db",
    costs="as the preset says (its section `about`); a stopped run goes on where it was",
    run=_run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
