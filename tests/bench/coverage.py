"""How often intervals of a comparison hold the truth, and how often equal methods seem to differ.

    python -m tests.bench.coverage --simulations 600

Two methods that are equal in truth are trained with S seeds each and judge the same patients, of 3
images each. The logit of an image being right is 1.2 + a patient's difficulty (standard deviation
1) + an effect of the training (0.35) + one of training and patient (0.5). Rows: patients; columns:
seeds. The true difference of every rate is 0.
"""

from __future__ import annotations

import argparse

import numpy as np

from gemix.evaluation.classification.bootstrap import compare_methods

PATIENTS, SEEDS = (20, 60, 100, 400), (2, 3, 5)
CLASSES, SLICES = 3, 3
LOGIT, DIFFICULTY, TRAINING, INTERACTION = 1.2, 1.0, 0.35, 0.5
RATES = ("macro_f2", "fnr")


def simulated(
    rng: np.random.Generator, patients: int, seeds: int
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Return labels, predictions [S, N] of both methods, and the patients."""
    of_patient = np.arange(patients) % CLASSES
    difficulty = rng.normal(0, DIFFICULTY, patients)
    labels = np.repeat(of_patient, SLICES)
    predictions = {}
    for method in ("real", "synthetic"):
        logit = LOGIT + difficulty + rng.normal(0, TRAINING, (seeds, 1))
        logit = logit + rng.normal(0, INTERACTION, (seeds, patients))
        right = rng.random((seeds, patients * SLICES)) < np.repeat(
            1 / (1 + np.exp(-logit)), SLICES, axis=1
        )
        wrong = (labels + rng.integers(1, CLASSES, right.shape)) % CLASSES
        predictions[method] = np.where(right, labels, wrong)
    return labels, predictions, [str(name) for name in np.repeat(np.arange(patients), SLICES)]


def coverage(
    patients: int, seeds: int, simulations: int, resamples: int = 500
) -> dict[str, tuple[float, float]]:
    """Return for each rate the share of intervals that hold 0, and of p-values below 0.05."""
    rng = np.random.default_rng([patients, seeds])
    held, claimed = np.zeros((2, len(RATES)))
    for _ in range(simulations):
        labels, predictions, groups = simulated(rng, patients, seeds)
        found = compare_methods(labels, predictions, groups, classes=CLASSES, resamples=resamples)
        for index, rate in enumerate(RATES):
            difference = found["synthetic"].differences[rate]
            held[index] += difference.low <= 0 <= difference.high
            claimed[index] += difference.p < 0.05
    return {
        rate: (held[index] / simulations, claimed[index] / simulations)
        for index, rate in enumerate(RATES)
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coverage")
    parser.add_argument("--simulations", type=int, default=600)
    options = parser.parse_args()
    for patients in PATIENTS:
        for seeds in SEEDS:
            found = coverage(patients, seeds, options.simulations)
            cells = ", ".join(
                f"{n} {held:.3f} (p < 0.05: {p:.3f})" for n, (held, p) in found.items()
            )
            print(f"{patients} patients, {seeds} seeds: {cells}", flush=True)


if __name__ == "__main__":
    main()
