"""Time a sweep with ASHA and the cache beside one without them.

    python -m tests.bench.sweep_speed --workdir DIR

Runs a sweep of the phantom, with the generator of ``zoo:phantom32``, two trials at a time. The same
trials then run without ASHA, the early end after a seed and the cache, two at a time as well: each
makes its own images and trains all epochs of all seeds. Prints trials an hour of both, from the
beginning of the first trial to the end of the last one, the ratio of that and of processor time a
trial, which other programs on the machine change little, the epochs that both trained, and how much
of the sweep's time on its two slots was neither training nor making images.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import tune.sweep
from gemix.config import PipelineConfig, load
from gemix.data.prepare import prepare_serial
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sweep import trial as trial_module
from gemix.steps.sweep.trial import steps_of
from gemix.zoo import open_pretrained
from tune.objective import train_trial

SLOTS = 2


def main() -> None:
    """Run both and print what they took."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sweep_speed")
    parser.add_argument("--workdir", default="runs/sweep-speed")
    parser.add_argument("--patients", type=int, default=60, help="of each class")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    config = sweep_config(options.patients, [f"sweep.concurrent={SLOTS}", *options.overrides])
    workspace = Workspace.at(options.workdir)
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    began = time.time()
    with mock.patch.object(tune.sweep, "train_trial", _timed_trial):
        sweep = tune.sweep.run_sweep(config, workspace)
    whole = time.time() - began
    trials = [record for record in sweep.study.records() if record.counts]
    ended = {state: sum(one.state == state for one in trials) for state in ("complete", "pruned")}
    asks = [sweep.settings(dict(record.params)) for record in trials]
    searched = _clocks(workspace)
    naive = _run_naive(config, workspace, asks)
    print(f"sweep: {_rate(searched):.1f} trials/h, {ended}, {whole:.0f} s with Ray's start")
    print(f"naive: {_rate(naive):.1f} trials/h; ratio {_rate(searched) / _rate(naive):.2f}")
    ours, theirs = (sum(one.processor for one in clocks) for clocks in (searched, naive))
    print(f"processor time: {ours:.0f} s and {theirs:.0f} s, ratio {theirs / ours:.2f}")
    curves = dict(sweep.study.curves())
    ours = sum(max(curves[record.number], default=0) for record in trials)
    theirs = len(trials) * steps_of(config)
    print(f"epochs: {ours} and {theirs}, ratio {theirs / ours:.2f}")
    print(f"outside training and images, naive: {_outside(naive):.1%} of {SLOTS} slots")
    print(f"the sweep: {_outside(searched):.1%}")


def sweep_config(patients: int, overrides: Sequence[str]) -> PipelineConfig:
    """Return the settings of a sweep on the phantom with a generator of the zoo.

    Args:
        patients: of each class, in all splits.
    """
    return load(
        "demo",
        [
            f"data.phantom.patients_per_class={patients}",
            f"synthesis.generator={open_pretrained('zoo:phantom32').url}",
            *("synthesis.labels=asked", "compute.cpus_per_worker=1", "sweep.fresh_seeds=0"),
            *overrides,
        ],
    )


@dataclasses.dataclass
class _Clock:
    """When a trial ran, how long it trained or made images, its processor time: all in seconds."""

    began: float
    ended: float = 0.0
    processor: float = 0.0
    busy: float = 0.0


def _rate(clocks: Sequence[_Clock]) -> float:
    return 3600 * len(clocks) / _span(clocks)


def _span(clocks: Sequence[_Clock]) -> float:
    return max(one.ended for one in clocks) - min(one.began for one in clocks)


def _outside(clocks: Sequence[_Clock]) -> float:
    return 1 - sum(one.busy for one in clocks) / (SLOTS * _span(clocks))


def _clocks(workspace: Workspace) -> list[_Clock]:
    files = Path(workspace.workdir).glob("clocks/*.json")
    return [_Clock(**json.loads(file.read_text())) for file in files]


@contextlib.contextmanager
def _timed(workdir: str) -> Iterator[None]:
    """Write the clock of the trial that runs inside, after each epoch: its end may be a kill."""
    clock, spent_before = _Clock(began=time.time()), time.process_time()
    file = Path(workdir) / "clocks" / f"{uuid.uuid4().hex}.json"
    file.parent.mkdir(exist_ok=True)
    train, images = trial_module.train, trial_module.training_images

    def write() -> None:
        clock.ended = time.time()
        clock.processor = time.process_time() - spent_before
        file.write_text(json.dumps(dataclasses.asdict(clock)))

    def timed_train(*arguments: Any, on_epoch: Any, **settings: Any) -> Any:
        since = time.time()

        def report(row: Mapping[str, float]) -> None:
            nonlocal since
            clock.busy += time.time() - since
            write()
            on_epoch(row)
            since = time.time()

        result = train(*arguments, on_epoch=report, **settings)
        clock.busy += time.time() - since
        return result

    def timed_images(*arguments: Any) -> Any:
        since = time.time()
        result = images(*arguments)
        clock.busy += time.time() - since
        return result

    with (
        mock.patch.object(trial_module, "train", timed_train),
        mock.patch.object(trial_module, "training_images", timed_images),
    ):
        yield
    write()


def _timed_trial(trial: dict[str, Any], *, workdir: str, **settings: Any) -> None:
    with _timed(workdir):
        train_trial(trial, workdir=workdir, **settings)


def _run_naive(
    config: PipelineConfig, workspace: Workspace, asks: Sequence[tuple[dict[str, Any], str | None]]
) -> list[_Clock]:
    """Run the trials of these settings and methods, each in a work directory of its own."""
    context = multiprocessing.get_context("spawn")
    folder = Path(workspace.workdir) / "naive"
    with ProcessPoolExecutor(SLOTS, mp_context=context) as pool:
        running = [
            pool.submit(_naive, config.to_mapping(), workspace.data, str(folder / str(index)), *ask)
            for index, ask in enumerate(asks)
        ]
        return [clock for one in running for clock in one.result()]


def _naive(
    config: Mapping[str, Any],
    data: str,
    workdir: str,
    settings: Mapping[str, Any],
    method: str | None,
) -> list[_Clock]:
    workspace = Workspace.at(workdir)
    Path(workdir).mkdir(parents=True)
    Path(workspace.data).symlink_to(Path(data).resolve())
    training, validation = (read_images([data], split) for split in ("train", "val"))
    with _timed(workdir):
        trial_module.run_trial(
            PipelineConfig.from_mapping(config),
            workspace,
            settings,
            method,
            training,
            validation,
            lambda report: None,
        )
    return _clocks(workspace)


if __name__ == "__main__":
    main()
