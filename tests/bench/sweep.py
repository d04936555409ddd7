"""Which sampler finds planted optima: ``python -m tests.bench.sweep``.

Twenty studies of thirty trials a sampler and objective. Found is an optimum if a trial's true
macro-F2 is within one standard deviation of the noise of the best feasible one, and a front if it
has nine tenths of the true one's hypervolume.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from gemix.sweep.samplers import SAMPLERS
from gemix.sweep.testing import (
    HARMFUL,
    OPPOSED,
    RELABELLED,
    TRIALS,
    Planted,
    excess,
    front_share,
    regret,
    search,
)

FRONT_FOUND = 0.9


def main() -> None:
    """Print one line a sampler and objective."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for sampler in args.samplers:
        _optimum(sampler, "optimum", HARMFUL, seeds, args.trials)
        _optimum(sampler, "choices", RELABELLED, seeds, args.trials)
        _front(sampler, seeds, args.trials)


def _optimum(sampler: str, name: str, planted: Planted, seeds: range, trials: int) -> None:
    started = time.monotonic()
    runs = [search(planted, seed, sampler=sampler, trials=trials) for seed in seeds]
    seconds = (time.monotonic() - started) / (len(seeds) * trials)
    misses = [regret(planted, run) for run in runs]
    among = {
        first: sum(regret(planted, run, first=first) <= planted.noise for run in runs)
        for first in (1, 3, trials)
    }
    over = [excess(planted, run) for run in runs]
    print(
        f"{sampler:4} {name}: found in {among[trials]} of {len(seeds)}, among the top three in "
        f"{among[3]}, the first in {among[1]}, regret {np.mean(misses):.4f} mean, "
        f"{max(misses):.4f} worst, feasible in {sum(o <= 0 for o in over)}, "
        f"{seconds:.2f} s a trial",
        flush=True,
    )


def _front(sampler: str, seeds: range, trials: int) -> None:
    started = time.monotonic()
    runs = [search(OPPOSED, seed, sampler=sampler, trials=trials) for seed in seeds]
    seconds = (time.monotonic() - started) / (len(seeds) * trials)
    shares = [front_share(OPPOSED, run) for run in runs]
    over = [excess(OPPOSED, run) for run in runs]
    print(
        f"{sampler:4} front:   found in {sum(s >= FRONT_FOUND for s in shares)} of {len(seeds)}, "
        f"hypervolume {np.mean(shares):.3f} mean, {min(shares):.3f} worst, feasible in "
        f"{sum(o <= 0 for o in over)}, {seconds:.2f} s a trial",
        flush=True,
    )


if __name__ == "__main__":
    main()
