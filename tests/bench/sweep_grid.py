"""Search against a full grid of T, b and N, where too many or too soft images harm.

    python -m tests.bench.sweep_grid --workdir DIR

Both train classifiers on the phantom, as ``gemix sweep`` does, with the generator of
``zoo:phantom32`` and labels as asked for: the grid every cell to the end, the search 30 trials with
the study, the sampler and ASHA of a sweep, one after another in this process, without Ray. Prints
the means of the grid, the best feasible setting of each, what both cost, and the difference of both
in macro-F2 on validation, with its standard error over patients and trainings: on the seeds by
which they were chosen, and on fresh ones. What is finished lies in the work directory, and the same
command goes on. As it is, that is 151 cells of 12 epochs: half an hour or more on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ray.tune.schedulers import TrialScheduler

from gemix.classifier.train import train
from gemix.config import PipelineConfig
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import MANIFEST
from gemix.data.shards.seal import sealed
from gemix.data.sources import open_source
from gemix.evaluation.classification.bootstrap import Comparison, compare_methods
from gemix.evaluation.classification.normal_class import normal_class
from gemix.evaluation.classification.rates import score
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.classifier_training import repetitions
from gemix.steps.sweep.opening import Sweep, open_sweep
from gemix.steps.sweep.trial import Report, configured, run_trial, steps_of, training_images
from gemix.sweep.objective import Scores
from gemix.sweep.records import best_record, format_params
from tests.bench.sweep_speed import sweep_config
from tune.objective import result_of
from tune.searcher import StudyScheduler, StudySearcher

GRID, SEARCH = "grid", "search"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A setting of the grid: what was measured, the epochs that were trained, processor seconds."""

    params: Mapping[str, Any]
    scores: Scores
    epochs: int
    seconds: float


def main() -> None:
    """Run both, as far as they have not run, and print how they compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sweep_grid")
    parser.add_argument("--workdir", default="runs/sweep-grid")
    parser.add_argument("--patients", type=int, default=60, help="of each class, all splits")
    parser.add_argument("--points", type=int, default=5, help="values of T, and of b")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 1, 1.5, 2, 3, 4])
    parser.add_argument("--fresh", type=int, default=5, help="seeds that neither was chosen by")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    config = sweep_config(
        options.patients,
        [
            # most patients are there to measure with: validation is cheap, training is not
            *("data.val_fraction=0.6", "data.test_fraction=0.1"),
            *("sweep.label_sources=[]", "sweep.methods=[softmax]", "sweep.trials=30"),
            *(f"sweep.ratio=[0,{max(options.ratios):g}]", "sweep.ratio_step=0.5"),
            *options.overrides,
        ],
    )
    torch.set_num_threads(1)
    workspace = Workspace.at(options.workdir)
    if not Store(workspace.data).exists(MANIFEST):
        prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    with sealed("test"):
        sweep = open_sweep(config, workspace)
        groups = len(set(sweep.validation.groups))
        print(f"{len(sweep.training)} training images, {groups} validation patients", flush=True)
        cells = _grid(sweep, options.points, options.ratios)
        reference = cells[0]
        _describe(cells)
        feasible = [
            cell
            for cell in cells
            if max(sweep.study.objective.constraints(cell.scores, reference.scores).values()) <= 0
        ]
        best = max(feasible, key=lambda cell: cell.scores.macro_f2)
        _search(sweep)
        found = best_record(sweep.study.records())
        for name, params, scores in (
            ("the grid's best", best.params, best.scores),
            ("the search's best", found.params, found.scores),
        ):
            print(f"{name}: {format_params(params)}, macro-F2 {scores.macro_f2:.3f}")
        _print_costs(sweep, cells)
        seeds = {"the same seeds": (0, config.sweep.seeds)}
        if options.fresh:
            seeds["fresh seeds"] = (config.sweep.seeds, options.fresh)
        for name, (first, count) in seeds.items():
            _compare(sweep, best.params, found.params, name, first, count)


def _grid(sweep: Sweep, points: int, ratios: Sequence[float]) -> list[Cell]:
    """Return the cells, that of real images alone first; run those that are not there."""
    settings = sweep.config.sweep
    low, high = map(math.log, settings.temperature)
    temperatures = np.exp(np.linspace(low, high, points)).tolist()
    biases = np.linspace(*settings.bias, points).tolist()
    asks: list[dict[str, Any]] = [{"ratio": 0.0}]
    for ratio, temperature, bias in itertools.product(ratios, temperatures, biases):
        images = {"ratio": ratio, "method": "softmax"}
        asks.append({**images, "temperature": temperature, "bias": bias})
    cells, store = [], Store(sweep.workspace.workdir) / GRID
    for number, params in enumerate(asks):
        name = f"{number:04d}.json"
        if not store.exists(name):
            began, steps = time.process_time(), 0

            def count(report: Report) -> None:
                nonlocal steps
                steps = report.step

            scores = Scores.mean(_run(sweep, params, count))
            cell = Cell(
                params=params,
                scores=scores,
                epochs=steps,
                seconds=time.process_time() - began,
            )
            store.write_json(name, dataclasses.asdict(cell))
            print(f"cell {number + 1} of {len(asks)}: {scores.macro_f2:.3f}", flush=True)
        row = store.read_json(name)
        if row["params"] != params:
            raise SystemExit(f"{store.url} has another grid; choose another --workdir")
        cells.append(Cell(**{**row, "scores": Scores(**row["scores"])}))
    return cells


def _run(sweep: Sweep, params: Mapping[str, Any], report: Any) -> list[Scores]:
    settings, method = sweep.settings(dict(params))
    splits = sweep.training, sweep.validation
    return run_trial(sweep.config, sweep.workspace, settings, method, *splits, report)


class _Ended(Exception):
    """Raised out of a trial that the scheduler stops."""


def _search(sweep: Sweep) -> None:
    """Run the trials that are left, as Ray Tune's controller does with one trial at a time."""
    study, total = sweep.study, steps_of(sweep.config)
    searcher = StudySearcher(study, total, dict, lambda: 1)
    scheduler = StudyScheduler(searcher, study, total, len(sweep.validation.classes))
    for name in map(str, itertools.count()):
        began = time.process_time()
        params = searcher.suggest(name)
        if searcher.failure is not None:
            raise searcher.failure
        if not isinstance(params, dict):
            return
        trial = SimpleNamespace(trial_id=name)
        (number,) = study.running
        scheduler.on_trial_add(None, trial)

        def report(one: Report, trial: SimpleNamespace = trial) -> None:
            result = result_of(one)
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE:
                searcher.on_trial_result(trial.trial_id, result)
                return
            searcher.on_trial_complete(trial.trial_id, result)
            raise _Ended

        with contextlib.suppress(_Ended):
            _run(sweep, params, report)
        seconds = time.process_time() - began
        folder = Path(sweep.workspace.workdir) / SEARCH
        folder.mkdir(exist_ok=True)
        (folder / f"{number:04d}.json").write_text(json.dumps(seconds))


def _describe(cells: Sequence[Cell]) -> None:
    """Print the mean of macro-F2 over the cells of each value, and that of real images alone."""
    print(f"real images alone: macro-F2 {cells[0].scores.macro_f2:.3f}; means of the grid's cells:")
    for name in ("ratio", "temperature", "bias"):
        rows = []
        for value in sorted({cell.params[name] for cell in cells[1:]}):
            some = [one.scores.macro_f2 for one in cells[1:] if one.params[name] == value]
            rows.append(f"{value:.3g}: {np.mean(some):.3f}")
        print(f"  {name:<12} {', '.join(rows)}")
    worst = min(cells, key=lambda cell: cell.scores.macro_f2)
    print(f"  worst        {format_params(worst.params)}: {worst.scores.macro_f2:.3f}")


def _print_costs(sweep: Sweep, cells: Sequence[Cell]) -> None:
    curves = [curve for _, curve in sweep.study.curves()]
    ours = sum(max(curve) for curve in curves if curve)
    theirs = sum(cell.epochs for cell in cells)
    print(f"epochs: grid {theirs} in {len(cells)} cells, search {ours} in {len(curves)} trials, ")
    print(f"  which is {ours / theirs:.1%}")
    files = (Path(sweep.workspace.workdir) / SEARCH).glob("*.json")
    spent = sum(json.loads(file.read_text()) for file in files)
    whole = sum(cell.seconds for cell in cells)
    print(f"processor time: grid {whole:.0f} s, search {spent:.0f} s, which is {spent / whole:.1%}")


def _compare(
    sweep: Sweep,
    grid: Mapping[str, Any],
    search: Mapping[str, Any],
    name: str,
    first: int,
    count: int,
) -> None:
    """Print by how much the search's setting is better than the grid's, on some seeds."""
    predictions = {
        GRID: np.stack(list(_predicted(sweep, grid, first, count))),
        SEARCH: np.stack(list(_predicted(sweep, search, first, count))),
    }
    validation = sweep.validation
    compared: dict[str, Comparison] = compare_methods(
        validation.labels,
        predictions,
        validation.groups,
        classes=len(validation.classes),
        normal=normal_class(validation.classes, sweep.config.data.normal_class),
        baseline=GRID,
    )
    difference = compared[SEARCH].differences["macro_f2"]
    low, high = compared[GRID].intervals["macro_f2"]
    ours, theirs = (compared[one].rates["macro_f2"] for one in (SEARCH, GRID))
    print(
        f"on {name} ({count}), with standard errors over patients and trainings: grid {theirs:.3f} "
        f"({(high - low) / (2 * 1.96):.3f}), search {ours:.3f}, difference {difference.delta:+.3f} "
        f"({'unknown' if difference.error is None else f'{difference.error:.3f}'})"
    )


def _predicted(
    sweep: Sweep, params: Mapping[str, Any], first: int, count: int
) -> Iterator[np.ndarray]:
    """Yield the classes that trainings on some seeds predict for the validation images."""
    settings, method = sweep.settings(dict(params))
    config: PipelineConfig = configured(sweep.config, settings)
    images = training_images(config, sweep.workspace, method, sweep.training)
    normal = normal_class(images.classes, config.data.normal_class)
    seeds = dataclasses.replace(config.classifier, seed=config.classifier.seed + first, seeds=count)
    for repetition in repetitions(seeds, len(sweep.training)):
        yield train(
            images,
            sweep.validation,
            repetition,
            lambda labels, found: score(labels, found, len(images.classes), normal),
            real_images=len(sweep.training),
        ).predicted


if __name__ == "__main__":
    main()
