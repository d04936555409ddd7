"""Do the generator's own settings make images show their labels, and at what price?

    python -m tests.bench.label_repair --kimg 20 --seeds 0 1 --workdir runs/label-repair

trains the demo's generator once for each seed and variant, at equal length, and prints for each how
far the images of a softmax and of a one-hot set show the labels asked for (by a teacher of the same
training images, and by a second one), beside KID, precision, recall and coverage. A training that
was stopped resumes, and one that is finished is not repeated; two runs with a seed each use two
cores better than one run with both.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path

from gemix.config import PipelineConfig, load
from gemix.core.errors import AlreadyFinishedError
from gemix.io.results import read_log
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.prepare import prepare
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.fidelity import read_fidelity

VARIANTS = {
    "none": {"label_mixing": 0.0, "classifier_weight": 0.0},
    "label mixing": {"label_mixing": 0.5, "classifier_weight": 0.0},
    "auxiliary classifier": {"label_mixing": 0.0, "classifier_weight": 0.5},
    "both": {"label_mixing": 0.5, "classifier_weight": 0.5},
    "both, balanced": {"label_mixing": 0.5, "classifier_weight": 0.5, "class_balance": 1.0},
}
SETTINGS = (
    *("synthesis.labels=asked", "synthesis.count=2000", "metrics.budget=1", "metrics.every=1"),
    *("metrics.images=2000", "metrics.real_images=2000", "metrics.extractor=timm-random:resnet18d"),
    *("gan.keep_checkpoints=1", "compute.workers=0", "compute.cpus_per_worker=1"),
)
HEADER = (
    "variant | seed | set | shown, teacher 1 | teacher 2 | by class, mean of both | "
    "calibration error | entropy r"
)


def main() -> None:
    """Train each variant with each seed; print a row for each set."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.label_repair")
    parser.add_argument("--config", default="demo")
    parser.add_argument("--kimg", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--workdir", default="runs/label-repair")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    snapshot = f"gan.snapshot_kimg={options.kimg}"
    config = load(
        options.config, [*SETTINGS, f"gan.kimg={options.kimg}", snapshot, *options.overrides]
    )
    shared = Workspace.at(f"{options.workdir}/shared")
    with contextlib.suppress(AlreadyFinishedError):
        prepare(config, shared)
    with contextlib.suppress(AlreadyFinishedError):
        train_teachers(config, shared)
    print(f"{HEADER} | KID x 1000 | precision | recall | coverage")
    for seed in options.seeds:
        for variant in options.variants:
            measure(config, options, shared, variant, seed)


def measure(
    config: PipelineConfig,
    options: argparse.Namespace,
    shared: Workspace,
    variant: str,
    seed: int,
) -> None:
    """Train once, make both sets, and print a row for each."""
    folder = Path(options.workdir) / f"{variant.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    folder.mkdir(exist_ok=True)
    for name, url in (("data", shared.data), ("teacher", shared.teacher)):
        if not (folder / name).exists():
            (folder / name).symlink_to(Path(url).absolute())
    gan = dataclasses.replace(config.gan, seed=seed, **VARIANTS[variant])
    config = dataclasses.replace(config, gan=gan)
    workspace = Workspace.at(folder)
    with contextlib.suppress(AlreadyFinishedError):
        train_gan(config, workspace)
    with contextlib.suppress(AlreadyFinishedError):
        synthesize(config, workspace)
    quality = [line for line in read_log(Store(workspace.gan)) if "kid" in line][-1]
    for method in config.synthesis.methods:
        found = read_fidelity(Store(workspace.synthetic(method)))
        seen = [teacher.synthetic for teacher in found.teachers]
        shown = " | ".join(f"{fidelity.agreement.value:.3f}" for fidelity in seen)
        by_class = zip(*(one.agreement_by_class for one in seen), strict=True)
        classes = "/".join(f"{sum(p.value for p in of) / len(of):.2f}" for of in by_class)
        entropy = seen[0].entropy_correlation
        print(
            f"{variant} | {seed} | {method} | {shown} | {classes} | {seen[0].calibration_error:.3f}"
            f" | {'-' if entropy is None else f'{entropy:.2f}'} | {1000 * quality['kid']:.2f}"
            f" | {quality['precision']:.2f} | {quality['recall']:.2f} | {quality['coverage']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
