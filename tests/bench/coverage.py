"""How often intervals of a comparison hold the truth, and how often equal methods seem to differ.

    python -m tests.bench.coverage --simulations 600
    python -m tests.bench.coverage --simulations 300 --methods 6 --draws 10
    python -m tests.bench.coverage --simulations 600 --generators 3

Methods that are equal in truth are trained with S seeds each and judge the same patients, of 3
images each. The logit of an image being right is 1.2 + a patient's difficulty (standard deviation
1) + an effect of the training (0.35) + one of training and patient (0.5); with several draws of
training patients also an effect of the draw, the same for all methods (0.35), and one of draw and
method (0.2); with generators an effect of the generator (0.35), which the trainings of a method
other than the first take in turn, and with `--ignore-generators` trainings count as independent.
Rows: patients; columns: seeds. The true difference of every rate is 0. With several
methods an interval counts as wrong if any method's joint interval does not hold 0.
"""

from __future__ import annotations

import argparse

import numpy as np

from gemix.evaluation.classification.bootstrap import compare_methods

PATIENTS, SEEDS = (20, 60, 100, 400), (2, 3, 5)
CLASSES, SLICES = 3, 3
LOGIT, DIFFICULTY, TRAINING, INTERACTION = 1.2, 1.0, 0.35, 0.5
DRAW, DRAW_AND_METHOD, GENERATOR = 0.35, 0.2, 0.35
RATES = ("macro_f2", "fnr")


def simulated(
    rng: np.random.Generator,
    patients: int,
    seeds: int,
    methods: int = 2,
    draws: int = 1,
    generators: int = 1,
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Return labels, predictions [draws x S, N] of each method, and the patients."""
    of_patient = np.arange(patients) % CLASSES
    difficulty = rng.normal(0, DIFFICULTY, patients)
    labels = np.repeat(of_patient, SLICES)
    trainings, of_draw = draws * seeds, np.zeros((draws, 1))
    if draws > 1:
        of_draw = rng.normal(0, DRAW, (draws, 1))
    predictions = {}
    for method in ("real", *(f"method {number}" for number in range(1, methods))):
        logit = LOGIT + difficulty + rng.normal(0, TRAINING, (trainings, 1))
        if draws > 1:
            mine = of_draw + rng.normal(0, DRAW_AND_METHOD, (draws, 1))
            logit = logit + np.repeat(mine, seeds, axis=0)
        if generators > 1 and method != "real":
            made = rng.normal(0, GENERATOR, (generators, 1))
            logit = logit + np.tile(made, (trainings // generators, 1))
        logit = logit + rng.normal(0, INTERACTION, (trainings, patients))
        right = rng.random((trainings, patients * SLICES)) < np.repeat(
            1 / (1 + np.exp(-logit)), SLICES, axis=1
        )
        wrong = (labels + rng.integers(1, CLASSES, right.shape)) % CLASSES
        predictions[method] = np.where(right, labels, wrong)
    return labels, predictions, [str(name) for name in np.repeat(np.arange(patients), SLICES)]


def coverage(
    patients: int,
    seeds: int,
    simulations: int,
    resamples: int = 500,
    methods: int = 2,
    draws: int = 1,
    generators: int = 1,
    ignore_generators: bool = False,
) -> dict[str, tuple[float, float]]:
    """Return for each rate the share of intervals that hold 0, and of p-values below 0.05.

    Of several methods, the share of simulations in which all joint intervals do, and in which the
    smallest joint p-value is below 0.05.
    """
    rng = np.random.default_rng([patients, seeds])
    held, claimed = np.zeros((2, len(RATES)))
    for _ in range(simulations):
        labels, predictions, groups = simulated(rng, patients, seeds, methods, draws, generators)
        made = {name: generators for name in predictions if name != "real"}
        found = compare_methods(
            labels,
            predictions,
            groups,
            classes=CLASSES,
            draws=draws,
            generators=None if ignore_generators else made,
            resamples=resamples,
        )
        for index, rate in enumerate(RATES):
            differences = [found[name].differences[rate] for name in predictions if name != "real"]
            held[index] += all(d.joint_low <= 0 <= d.joint_high for d in differences)
            claimed[index] += min(d.p_joint for d in differences) < 0.05
    return {
        rate: (held[index] / simulations, claimed[index] / simulations)
        for index, rate in enumerate(RATES)
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coverage")
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--methods", type=int, default=2, help="the baseline included")
    parser.add_argument("--draws", type=int, default=1, help="of training patients")
    parser.add_argument("--generators", type=int, default=1, help="of each method's images")
    parser.add_argument("--ignore-generators", action="store_true")
    options = parser.parse_args()
    repeats = SEEDS if options.draws == 1 else (1, 2)
    if options.generators > 1:
        repeats = tuple(times * options.generators for times in (1, 2, 4))
    for patients in PATIENTS:
        for seeds in repeats:
            found = coverage(
                patients,
                seeds,
                options.simulations,
                methods=options.methods,
                draws=options.draws,
                generators=options.generators,
                ignore_generators=options.ignore_generators,
            )
            cells = ", ".join(
                f"{n} {held:.3f} (p < 0.05: {p:.3f})" for n, (held, p) in found.items()
            )
            print(f"{patients} patients, {seeds} seeds: {cells}", flush=True)


if __name__ == "__main__":
    main()
