"""Make the networks of ``gemix/zoo``: phantom, training, export, card.

    python -m tests.bench.zoo phantom32 --workdir runs/zoo

It resumes where it was stopped. The phantom's seed is not that of any preset, so that nobody who
is tested on in a demo was seen here. ``--export-only`` exports what an unfinished training has.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import build
from gemix.classifier.predict import predict_logits
from gemix.classifier.train import train as train_classifier
from gemix.config import PipelineConfig, load
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.image_quality.kid import kid
from gemix.gan.checkpoints.checkpoint import checkpoint_spec, checkpoints
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.config import SamplingConfig
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.export_gan import export_gan

COMMON = (
    "data.phantom.seed=77",
    "data.phantom.conspicuity=1.0",
    "metrics.images=0",
    "compute.gpus_per_worker=0",
    "compute.workers=0",
)
# the widths of the demo preset at 32 x 32; wider at 64 x 64
NETWORKS = {
    "phantom32": (
        "data.resolution=32",
        "data.phantom.patients_per_class=800",
        "data.phantom.slices_per_patient=2",
        "gan.batch=16",
        "gan.pretrain_kimg=20",
        "gan.kimg=100",
        "gan.g_lr=0.003",
        "gan.d_lr=0.003",
        "gan.ema_kimg=4",
        "gan.ada_kimg=200",
        "gan.snapshot_kimg=4",
        "gan.label_mixing=0",
        "gan.classifier_weight=0",
    ),
    "phantom64": (
        "data.resolution=64",
        "data.phantom.patients_per_class=800",
        "data.phantom.slices_per_patient=2",
        "gan.batch=64",
        "gan.pretrain_kimg=40",
        "gan.kimg=200",
        "gan.g_lr=0.0025",
        "gan.d_lr=0.0025",
        "gan.z_dim=128",
        "gan.w_dim=128",
        "gan.mapping_layers=2",
        "gan.channel_base=2048",
        "gan.channel_max=128",
        "gan.r1_gamma=1.0",
        "gan.ema_kimg=10",
        "gan.ada_kimg=200",
        "gan.snapshot_kimg=20",
        "gan.precision=auto",
    ),
}
IMAGES = 2000
EXTRACTOR = "timm-random:resnet18d"


def main() -> None:
    """Train, export and describe one of the networks."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.zoo")
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("--workdir", default="runs/zoo")
    parser.add_argument("--out", default=str(Path(__file__).parents[2] / "gemix/zoo"))
    parser.add_argument("--export-only", action="store_true")
    options = parser.parse_args()
    overrides = (*COMMON, *NETWORKS[options.name])
    workspace, config = Workspace.at(f"{options.workdir}/{options.name}"), load("demo", overrides)
    if not options.export_only:
        for step in ("prepare", "train-gan"):
            run(step, workspace, overrides)
    out = Path(options.out) / options.name
    export_gan(workspace.gan, str(out), overwrite=True)
    (out / "CARD.md").write_text(card(options.name, config, workspace, overrides, out))
    print((out / "CARD.md").read_text())


def run(step: str, workspace: Workspace, overrides: tuple[str, ...]) -> None:
    """Run a step as a user does; one that is finished already is left as it is."""
    command = [sys.executable, "-m", "jobs._runtime.cli", step, "-c", "demo", "-w"]
    done = subprocess.run(
        [*command, workspace.workdir, *overrides], stderr=subprocess.PIPE, text=True
    )
    if done.returncode and "finished" not in done.stderr:
        sys.exit(done.stderr[-2000:])


def card(
    name: str, config: PipelineConfig, workspace: Workspace, overrides: tuple[str, ...], out: Path
) -> str:
    """Return what the network is, how it was made and how good its images are."""
    store = Store(workspace.gan)
    spec, step = checkpoint_spec(store, checkpoints(store)[-1])
    train, val, test = (read_images([workspace.data], split) for split in ("train", "val", "test"))
    fakes, asked = samples(out, len(train.classes))
    extractor = open_extractor(EXTRACTOR, spec.architecture.resolution, torch.device("cpu"))
    chosen = np.random.default_rng(0).permutation(len(train.images))[:IMAGES]
    distance = kid(extractor(train.images[chosen]), extractor(fakes))
    judge = ClassifierConfig(model="resnet10t", epochs=6, batch=32, lr=1e-3)
    normal = normal_class(train.classes)
    trained = train_classifier(
        train, val, judge, lambda truth, found: score(truth, found, len(train.classes), normal)
    )
    network = build(trained.spec)
    network.load_state_dict(trained.state)

    def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
        logits = predict_logits(network, trained.normalization, images)
        return float((logits.argmax(dim=1).numpy() == labels).mean())

    size, gan = spec.architecture.resolution, spec.config
    widths = ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")
    needed = " ".join(f"gan.{key}={getattr(gan, key)}" for key in widths)
    asked_for = accuracy(fakes, asked)
    real = accuracy(test.images, test.labels)
    rows = {
        "made by": f"`python -m tests.bench.zoo {name}`",
        "settings": f"`{shlex.join(overrides)}` on the preset `demo`",
        "length": f"{gan.pretrain_kimg:g} kimg without labels, then {gan.kimg_at(step):g} of "
        f"{gan.kimg:g} kimg",
        "seed": f"{gan.seed}; of the phantom {config.data.phantom.seed}",
        "KID": f"{distance.value:.4f} ± {distance.error:.4f} (standard error), {len(fakes)} images "
        f"of pure labels against {len(chosen)} training images, by `{EXTRACTOR}`",
        "label fidelity": f"a ResNet-10 trained on the real phantom gives {asked_for:.1%} of these "
        f"images the label that was asked for, and {real:.1%} of real test images theirs",
        "licence": "that of gemix",
    }
    return f"""# {name}

Generator and discriminator of StyleGAN2-ADA for {size}×{size} grey images of {len(spec.classes)}
classes ({", ".join(spec.classes)}), float16. Trained on the built-in phantom, on nobody's scan.
Start a training from it with

    gan.init_from=zoo:{name} {needed}

The number of classes may differ; a larger resolution starts from the common layers.

| | |
|---|---|
{chr(10).join(f"| {key} | {value} |" for key, value in rows.items())}

It is a start, not a source of images: its slices look like phantoms.
"""


def samples(folder: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of pure labels, evenly over the classes, and the classes asked for."""
    generator = load_generator(Store(folder)).network
    asked = np.arange(IMAGES) % classes
    labels = np.eye(classes, dtype=np.float32)[asked]
    seeds = list(range(1_000_000, 1_000_000 + IMAGES))
    return sample_images(generator, seeds, labels, SamplingConfig()), asked


if __name__ == "__main__":
    main()
