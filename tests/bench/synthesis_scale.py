"""Synthesize sets of growing size: speed, memory, and what label fidelity costs.

    python -m tests.bench.synthesis_scale --workdir DIR --images 1000 10000 20000 100000
    python -m tests.bench.synthesis_scale --config iqoth128 --workdir DIR --images 256 512

Each set is made by the step `synthesize`, in a process of its own on one core, with two teachers of
the preset's network (of one epoch: what they have learned changes no speed). The generator is that
of ``zoo:phantom32`` for the preset `demo`, and for another preset an untrained one of its size. All
real images are phantoms. Prints images per second while shards are written, the largest memory of
the process and how much of it came after the first shard, the processor time of label fidelity
(what teachers see, and the measure) and of all else per 1,000 images, and whether the set begins
with the one before it, pixel by pixel.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
import torch

from gemix.config import PipelineConfig, load
from gemix.core.errors import AlreadyFinishedError
from gemix.data.leakage.provenance import write_provenance
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import save_generator
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps import synthesize as step
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.teacher import Teachers
from gemix.zoo import open_pretrained

HEADER = (
    "images | images/s | peak MB | after the first shard | "
    "fidelity, s per 1,000 | the rest | ratio | begins with the last"
)


def main() -> None:
    """Make the sets and print a row for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.synthesis_scale")
    parser.add_argument("--config", default="demo", help="preset whose networks are used")
    parser.add_argument("--workdir", default="runs/synthesis-scale")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 20_000, 100_000])
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    workspace = Workspace.at(options.workdir)
    is_demo = options.config == "demo"
    generator = open_pretrained("zoo:phantom32").url if is_demo else workspace.gan
    config = load(
        options.config,
        [
            *("data.source=phantom", "data.phantom.patients_per_class=40"),
            *("teacher.epochs=1", "teacher.pretrained=false"),
            *(f"synthesis.generator={generator}", "synthesis.methods=[softmax]"),
            "synthesis.labels=asked",  # labels of the teacher cost its look at all images besides
            *("compute.workers=0", "compute.cpus_per_worker=1", "compute.gpus_per_worker=0"),
            *options.overrides,
        ],
    )
    with contextlib.suppress(AlreadyFinishedError):
        prepare_serial(open_source(config.data), config.data, Store(workspace.data))
        train_teachers(config, workspace)
    if not is_demo:
        write_untrained(config, workspace)
    print(HEADER)
    last = None
    for count in options.images:
        print(f"{count:,} | {_apart(config, workspace, count)}", end=" | ")
        made = read_images([workspace.synthetic("softmax")])
        print("-" if last is None else np.array_equal(made.images[: len(last)], last), flush=True)
        last = made.images


def write_untrained(config: PipelineConfig, workspace: Workspace) -> None:
    """Write a generator of the settings' size for the prepared images, with random weights."""
    data, store = Manifest.load(Store(workspace.data)), Store(workspace.gan)
    architecture = config.gan.architecture(
        resolution=data.resolution, img_channels=data.channels, label_dim=len(data.classes)
    )
    spec = TrainingSpec(
        architecture=architecture, config=config.gan, classes=data.classes, data_digest="untrained"
    )
    save_generator(store, new_state(architecture, config.gan, torch.device("cpu")), spec)
    write_provenance(store, [])


def _apart(config: PipelineConfig, workspace: Workspace, count: int) -> str:
    """Make a set in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_make, config.to_mapping(), workspace.workdir, count).result()


def _make(settings: dict[str, Any], workdir: str, count: int) -> str:
    """Make a set of `count` images; return the columns of the table but the last."""
    config = PipelineConfig.from_mapping(
        settings | {"synthesis": settings["synthesis"] | {"count": count}}
    )
    with (
        _clock(Teachers, "probabilities") as seen,
        _clock(step, "measure_set") as measured,
        _clock(step, "write_synthetic_shard") as written,
    ):
        step.synthesize(config, Workspace(workdir), overwrite=True)
    fidelity = sum(one.processor for one in (*seen, *measured))
    rest = sum(one.processor for one in written) - sum(one.processor for one in seen)
    rate = count / sum(one.wall for one in written)
    peak = written[-1].peak
    return (
        f"{rate:.0f} | {peak:.0f} | {peak - written[0].peak:.0f} | {1000 * fidelity / count:.2f} | "
        f"{1000 * rest / count:.2f} | {fidelity / rest:.2f}"
    )


class _Call:
    """A call of a function: seconds by the clock and of the processor, peak memory after it."""

    def __init__(self) -> None:
        self._began, self._spent = time.monotonic(), time.process_time()

    def end(self) -> None:
        """Note the end."""
        self.wall = time.monotonic() - self._began
        self.processor = time.process_time() - self._spent
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # MB


@contextlib.contextmanager
def _clock(owner: Any, name: str) -> Iterator[list[_Call]]:
    """Note every call of a function."""
    calls: list[_Call] = []
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        call = _Call()
        found = function(*arguments, **named)
        call.end()
        calls.append(call)
        return found

    with mock.patch.object(owner, name, timed):
        yield calls


if __name__ == "__main__":
    main()
