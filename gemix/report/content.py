"""The content of the report, read from a work directory as plain values.

The part of a step that has not run is left out and named in `ReportContent.missing`; a file that
exists and cannot be read is an error.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gemix.config import PipelineConfig
from gemix.core import environment
from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.io.comparison_record import MethodComparison, read_comparison
from gemix.io.predictions import Predictions, read_predictions
from gemix.io.records import to_json
from gemix.io.results import (
    EVALUATION,
    LABEL_PATH,
    REAL,
    BelowReal,
    TeacherRates,
    read_evaluation,
    read_history,
    read_log,
    read_steps,
)
from gemix.io.storage import Store
from gemix.io.sweep_record import SweepResults, read_sweep
from gemix.io.workspace import Workspace
from gemix.report.examples import Example, examples, small_png
from gemix.report.label_figure import read_figure
from gemix.report.sections.data import DataPart, data_part
from gemix.report.sections.image_metrics import ImageMetricsPart, image_metrics
from gemix.report.sections.inside import InsidePart, inside_part
from gemix.report.sections.privacy_audit import AuditPart, audit_parts
from gemix.report.sections.set_cards import SetCardsPart, set_cards
from gemix.report.verdict import Verdict, decide
from gemix.synthesis.fidelity import SetFidelity, read_fidelity

EXAMPLES_PER_CLASS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPath:
    """A strip of images from the label of one class to that of another."""

    start: str
    end: str
    png: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything that the page shows.

    Attributes:
        run: name of the work directory.
        created: time of reading, UTC.
        config: the resolved configuration.
        verdict: the first sentences; None before the evaluation.
        evaluation: ``evaluation.json``, results ordered: real, then as configured; None before.
        predictions: of the test images, for each method one a seed; empty before the evaluation.
        inside: pictures and maps of the best classifier; None if no evaluation has kept them.
        data: the real images; None before prepare.
        synthetic: number of images of each method's finished set.
        set_cards: main rows of the sets' cards; None where no set has one.
        audits: the privacy audit of each finished set.
        examples: for each class the rows to show, (training set, images).
        label_figures: an SVG file of the labels of each method's finished set that has one.
        label_paths: one strip for each pair of classes.
        gan_log: one mapping a line of the GAN's log.
        label_fidelity: of each method's set whose labels were checked.
        image_metrics: of the GAN's images; None if not measured.
        comparison: of methods; None where none were compared.
        sweep: of T, b and N; None where none has ended.
        histories: for each method one list of epochs a seed.
        steps: wall seconds of each finished step.
        machine, versions, commit: of the process that reads.
        missing: what is left out, and which command makes it.
    """

    run: str
    created: datetime.datetime
    config: PipelineConfig
    verdict: Verdict | None
    evaluation: Mapping[str, Any] | None
    predictions: Mapping[str, tuple[Predictions, ...]]
    inside: InsidePart | None
    data: DataPart | None
    synthetic: Mapping[str, int]
    set_cards: SetCardsPart | None
    audits: tuple[AuditPart, ...]
    examples: Mapping[str, tuple[tuple[str, tuple[Example, ...]], ...]]
    label_figures: Mapping[str, bytes]
    label_paths: tuple[LabelPath, ...]
    gan_log: tuple[Mapping[str, float | None], ...]
    label_fidelity: Mapping[str, SetFidelity]
    image_metrics: ImageMetricsPart | None
    comparison: MethodComparison | None
    sweep: SweepResults | None
    histories: Mapping[str, tuple[tuple[Mapping[str, float], ...], ...]]
    steps: Mapping[str, float]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str | None
    missing: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, or numbers if the real images are gone."""
        if self.data:
            return self.data.manifest.classes
        confusion = self.evaluation["results"][0]["confusion"] if self.evaluation else []
        return tuple(f"class {index}" for index in range(len(confusion)))


def gather(workspace: Workspace, config: PipelineConfig) -> ReportContent:
    """Read what the steps have written so far.

    Raises:
        DataError: for a file that cannot be read, or if no step has run.
    """
    missing: list[str] = []
    methods = config.synthesis.methods
    data = data_part(Store(workspace.data))
    if data is None:
        missing.append("the real images (gemix prepare)")
    urls = {name: workspace.synthetic(name) for name in methods}
    sets = {name: url for name, url in urls.items() if Store(url).exists(MANIFEST)}
    missing += [f"{name} images (gemix synthesize)" for name in methods if name not in sets]
    gan_log = read_log(Store(workspace.gan))
    if not gan_log and config.synthesis.generator is None:
        missing.append("the GAN's training curves (gemix train-gan)")
    histories = _histories(Store(workspace.classifiers), (REAL, *methods))
    if not histories:
        missing.append("the classifiers' training curves (gemix train-classifier)")
    evaluation = _evaluation(Store(workspace.evaluation), (REAL, *methods))
    if evaluation is None:
        missing.append("the verdict and the results (gemix evaluate)")
    workdir = Store(workspace.workdir)
    comparison = read_comparison(Store(workspace.comparison))
    if comparison and comparison.folds:
        missing.clear()  # all else is in the work directories of the folds
    if data is None and not gan_log and evaluation is None and comparison is None:
        raise DataError(
            f"{workdir.url}: no step has left a result here; run gemix pipeline first, or name "
            "another directory with --workdir"
        )
    return ReportContent(
        run=workdir.url.rsplit("/", 1)[-1],
        created=datetime.datetime.now(datetime.UTC),
        config=config,
        verdict=_verdict(evaluation, methods) if evaluation else None,
        evaluation=evaluation,
        predictions=_predictions(Store(workspace.evaluation), (REAL, *methods))
        if evaluation
        else {},
        inside=inside_part(Store(workspace.evaluation), len(evaluation["results"][0]["confusion"]))
        if evaluation
        else None,
        data=data,
        synthetic={name: Manifest.load(Store(url)).images() for name, url in sets.items()},
        set_cards=set_cards(sets),
        audits=audit_parts(workspace, sets, config.audit),
        examples=_examples(workspace.data, sets, data.manifest.classes) if data else {},
        label_figures={
            name: figure
            for name, url in sets.items()
            if (figure := read_figure(Store(url))) is not None
        },
        label_paths=_label_paths(Store(workspace.gan), data.manifest.classes) if data else (),
        gan_log=gan_log,
        label_fidelity={
            name: found for name, url in sets.items() if (found := read_fidelity(Store(url)))
        },
        image_metrics=image_metrics(Store(workspace.gan)),
        comparison=comparison,
        sweep=read_sweep(Store(workspace.sweep)),
        histories=histories,
        steps=read_steps(workdir),
        machine=environment.machine(),
        versions=environment.versions(),
        commit=environment.git_commit(),
        missing=tuple(missing),
    )


def _examples(
    real: str, synthetic: Mapping[str, str], classes: Sequence[str]
) -> dict[str, tuple[tuple[str, tuple[Example, ...]], ...]]:
    """Return rows of images for each class: real ones of the training split, then each method's."""
    rows = {
        name: examples(url, "train", EXAMPLES_PER_CLASS)
        for name, url in {REAL: real, **synthetic}.items()
    }
    return {
        class_name: tuple((name, by_class[index]) for name, by_class in rows.items())
        for index, class_name in enumerate(classes)
    }


def _label_paths(store: Store, classes: Sequence[str]) -> tuple[LabelPath, ...]:
    """Return the strips of ``label_path.png``: one a pair of classes, in lexicographic order."""
    name = LABEL_PATH
    if not store.exists(name):
        return ()
    pairs = list(itertools.combinations(classes, 2))
    with Image.open(io.BytesIO(store.read_bytes(name))) as image:
        strips = np.array_split(np.asarray(image.convert("L")), len(pairs))
    return tuple(
        LabelPath(start=start, end=end, png=small_png(strip[None], largest=1600))
        for (start, end), strip in zip(pairs, strips, strict=True)
    )


def _histories(
    store: Store, order: Sequence[str]
) -> dict[str, tuple[tuple[Mapping[str, float], ...], ...]]:
    """Return histories from ``<method>-seed<k>/model.json``, in the order given."""
    found: dict[str, list[tuple[Mapping[str, float], ...]]] = {}
    for name in store.list(recursive=True):
        folder, _, file = name.rpartition("/")
        if file == "model.json" and "-seed" in folder:
            method = folder.rsplit("-seed", 1)[0]
            found.setdefault(method, []).append(read_history(store, name))
    return {method: tuple(found[method]) for method in _ordered(found, order)}


def _evaluation(store: Store, order: Sequence[str]) -> dict[str, Any] | None:
    if not store.exists(EVALUATION):
        return None
    tree = to_json(read_evaluation(store))
    by_method = {result["method"]: result for result in tree["results"]}
    return tree | {"results": [by_method[method] for method in _ordered(by_method, order)]}


def _predictions(store: Store, order: Sequence[str]) -> dict[str, tuple[Predictions, ...]]:
    found: dict[str, list[Predictions]] = {}
    for one in sorted(read_predictions(store), key=lambda one: one.seed):
        found.setdefault(one.method, []).append(one)
    return {method: tuple(found[method]) for method in _ordered(found, order)}


def _verdict(evaluation: Mapping[str, Any], methods: Sequence[str]) -> Verdict:
    below, teacher = evaluation.get("below_real"), evaluation.get("teacher")
    return decide(
        evaluation["results"],
        methods,
        BelowReal(**below) if below else None,
        TeacherRates(**teacher) if teacher else None,
    )


def _ordered(found: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))
