"""Measure what a small site gains by the generator of a large site with other patients.

    python -m tests.bench.sharing --workdir runs/sharing

A large site prepares its patients, trains a generator (from ``zoo:phantom32``, whose patients are
others still) and teachers, and exports both for others. A small site of other patients makes
images with them, labelled by the large site's teacher, and compares methods on draws of its
patients, tested on patients of its own. `--noise`, `--field-of-view` and `--contrast-agent` say how
the small site's scanner differs; ``compare.baseline=onehot`` gives other contrasts of the same
trainings.

Beside them stands what is simpler than sharing a generator: sharing the classifier. The teacher
itself is scored on the small site's test images, and classifiers of the small site start from it
(method ``real``, ``classifier.weights``). Each stage is done once: a run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemix.classifier.bundle import WEIGHTS
from gemix.config import PipelineConfig, load
from gemix.core.errors import AlreadyFinishedError
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.io.comparison_record import COMPARISON
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.step import compare
from gemix.steps.compare.tables import text, worth_lines
from gemix.steps.export_gan import export_gan
from gemix.steps.prepare import prepare
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.teacher import Teachers
from jobs._runtime.ray_executor import RayExecutor
from jobs.demo import LARGE_SITE, LARGE_SITE_SEED

METHODS = ("real", "real+cutmix", "softmax", "softmax+pretrain", "onehot", "held-back")
FROM_CLASSIFIER = ("real", "real+cutmix")
LARGE = (  # the demo's, with other lengths
    *(*LARGE_SITE, LARGE_SITE_SEED, "teacher.epochs=12"),
    *("metrics.images=1000", "metrics.real_images=2000", "metrics.budget=1"),
    "metrics.extractor=timm-random:resnet18d",
)


def main() -> None:
    """Train the large site's networks, then compare methods at the small site."""
    parser = argument_parser("sharing")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.25])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    options = parser.parse_args()
    shared = f"{options.workdir}/shared"
    large_site(options, shared)
    if not options.large_only:
        small_site(options, shared)


def argument_parser(bench: str) -> argparse.ArgumentParser:
    """Return a parser of the options of both sites."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.{bench}")
    parser.add_argument("--workdir", default=f"runs/{bench.replace('_', '-')}")
    parser.add_argument("--site", default="small", help="name of the small site's directory")
    parser.add_argument("--kimg", type=float, default=60, help="of the large site's generator")
    parser.add_argument("--ratio", type=float, default=4, help="synthetic images for a real one")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--field-of-view", type=float, default=1.0)
    parser.add_argument("--contrast-agent", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2, help="0: this process, without Ray")
    parser.add_argument("--large-only", action="store_true", help="stop after the large site")
    parser.add_argument("overrides", nargs="*", help="section.key=value, of the small site")
    return parser


def large_site(options: argparse.Namespace, shared: str) -> None:
    """Train generator and teachers, and export them for others."""
    config = load(
        "demo",
        [
            *LARGE,
            *(f"gan.kimg={options.kimg}", f"gan.snapshot_kimg={options.kimg / 4}"),
            *("compute.workers=0", "compute.cpus_per_worker=1"),
        ],
    )
    workspace = Workspace.at(f"{options.workdir}/large")
    for step in (prepare, train_teachers, train_gan):
        with contextlib.suppress(AlreadyFinishedError):
            step(config, workspace)
    with contextlib.suppress(AlreadyFinishedError):
        export_gan(workspace.gan, shared, teacher_url=workspace.teacher, for_others=True)


def small_site(options: argparse.Namespace, shared: str) -> None:
    """Compare methods on draws of the small site's patients; print the rows."""
    config = small_config(options, shared, options.methods, options.fractions)
    workspace = prepared(config, options)
    for method in config.synthesis.methods:
        make_set(config, workspace, method, method)
    found = run(config, workspace)
    show(found)
    teacher = Teachers.load(f"{shared}/teacher")
    print("the large site's classifier:", teacher_rates(config, workspace, teacher))
    methods = tuple(name for name in options.methods if name in FROM_CLASSIFIER)
    if len(methods) < len(FROM_CLASSIFIER):
        return
    # classifiers that start from the large site's: the same draws, a baseline of their own
    started = dataclasses.replace(
        config.classifier, weights=f"{shared}/teacher/{teacher.rows[0].name}/{WEIGHTS}"
    )
    compared = dataclasses.replace(config.compare, methods=methods, baseline="real")
    again = Workspace.at(f"{options.workdir}/{options.site}-from-classifier")
    data = Path(again.data)
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        data.symlink_to(Path(workspace.data).absolute())
    found = run(dataclasses.replace(config, classifier=started, compare=compared), again)
    print("classifiers that start from the large site's:")
    show(found)


def small_config(
    options: argparse.Namespace,
    shared: str,
    methods: Sequence[str],
    fractions: Sequence[float],
    baseline: str = "real",
) -> PipelineConfig:
    """Return the small site's settings: its scanner, the shared networks, the comparison."""
    return load(
        "demo",
        [
            f"data.phantom.noise={options.noise}",
            f"data.phantom.field_of_view={options.field_of_view}",
            f"data.phantom.contrast_agent={options.contrast_agent}",
            *(f"synthesis.generator={shared}", f"synthesis.teacher={shared}/teacher"),
            f"synthesis.ratio={options.ratio}",
            f"compare.methods=[{','.join(methods)}]",
            f"compare.fractions=[{','.join(map(str, fractions))}]",
            f"compare.baseline={baseline}",
            *(f"compare.draws={options.draws}", "compare.seeds=1", "classifier.epochs=12"),
            *("classifier.epoch_images=891", f"compute.workers={options.workers}"),
            "compute.cpus_per_worker=1",
            *options.overrides,
        ],
    )


def prepared(config: PipelineConfig, options: argparse.Namespace) -> Workspace:
    """Prepare the small site's images, unless they are there; return its work directory."""
    workspace = Workspace.at(f"{options.workdir}/{options.site}")
    with contextlib.suppress(AlreadyFinishedError):
        prepare(config, workspace, executor=executor_of(config))
    return workspace


def make_set(config: PipelineConfig, workspace: Workspace, sampler: str, name: str) -> None:
    """Make the set of a sampler under a name of its own, unless it is there."""
    with contextlib.suppress(AlreadyFinishedError):
        synthesize(
            config,
            workspace,
            methods=[sampler],
            into=lambda _: workspace.synthetic(name),
            executor=executor_of(config),
        )


def executor_of(config: PipelineConfig) -> Executor:
    """Return where the small site's steps run: on Ray, or in this process without workers."""
    return RayExecutor() if config.compute.workers else LocalExecutor()


def run(config: PipelineConfig, workspace: Workspace) -> dict[str, Any]:
    """Compare, or return what an earlier run with the same baseline has found."""
    store = Store(workspace.comparison)
    if store.exists(COMPARISON):
        found = store.read_json(COMPARISON)
        if found["baseline"] == config.compare.baseline:
            return found
    return compare(config, workspace, executor=executor_of(config))


def show(found: dict[str, Any]) -> None:
    """Print a table for each fraction of the patients, and what sets are worth."""
    for block in found["blocks"]:
        print(f"\n{block['patients']} training patients, {block['draws']} draw(s) of them:")
        print(text(block))
    print(*worth_lines(found["worth"]), sep="\n", flush=True)


def teacher_rates(
    config: PipelineConfig, workspace: Workspace, teachers: Teachers
) -> dict[str, float]:
    """Return rates of the first teacher on the small site's test images."""
    test = read_images([workspace.data], "test")
    predicted = teachers.members[0].predict(test.images).argmax(axis=1)
    normal = normal_class(test.classes, config.data.normal_class)
    return score(test.labels, predicted, len(test.classes), normal)


if __name__ == "__main__":
    main()
