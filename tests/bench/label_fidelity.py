"""Does label fidelity measure what it says? Images whose truth is known, with wrong labels planted.

    python -m tests.bench.label_fidelity --workdir runs/demo

takes the teachers of a work directory of the phantom, renders new patients, gives a share of the
slices the label of another class, and compares the agreement that is measured with the share of
right labels: 1 - r for a teacher that never errs, and (1 - r) a + r (1 - a) / (K - 1) for one that
is right on a share a of real validation images and errs towards all other classes alike.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np

from gemix.config import load
from gemix.data.prepare import prepare_serial
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.evaluation.label_fidelity.measure import label_fidelity
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.synthesis.teacher import Teachers

RATES = (0.0, 0.1, 0.2, 0.4, 0.6)


def main() -> None:
    """Print a row for each share of wrong labels."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.label_fidelity")
    parser.add_argument("--workdir", default="runs/demo", help="with teachers of the phantom")
    parser.add_argument("--config", default="demo")
    parser.add_argument("--patients", type=int, default=150, help="new patients of each class")
    options = parser.parse_args()
    teachers = Teachers.load(Workspace.at(options.workdir).teacher)
    with tempfile.TemporaryDirectory() as folder:
        config = load(
            options.config,
            ["data.phantom.seed=9001", f"data.phantom.patients_per_class={options.patients}"],
        )
        prepare_serial(open_source(config.data), config.data, Store(folder))
        images = read_images([folder])
    seen = teachers.probabilities(images.images)
    classes, rng = len(images.classes), np.random.default_rng(0)
    print(f"{len(images)} slices of {len(set(images.groups))} new patients")
    print("wrong labels | expected | measured by each teacher, with 95% intervals")
    for rate in RATES:
        is_wrong = rng.random(len(images)) < rate
        other = (images.labels + rng.integers(1, classes, len(images))) % classes
        asked = np.eye(classes)[np.where(is_wrong, other, images.labels)]
        cells = []
        for index, row in enumerate(teachers.rows):
            a = row.real.agreement.value
            expected = (1 - rate) * a + rate * (1 - a) / (classes - 1)
            found = label_fidelity(asked, seen[:, index]).agreement
            cells.append(f"{expected:.3f}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
        print(f"{rate:.0%} | {1 - rate:.2f} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
