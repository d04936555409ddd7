"""Does label fidelity measure what it says? Images whose truth is known, with wrong labels planted.

    python -m tests.bench.label_fidelity --workdir runs/demo

takes the teachers of a work directory of the phantom, renders new patients, gives a share of the
slices the label of another class, and compares the agreement that is measured with the share of
right labels: 1 - r for a teacher that never errs, and (1 - r) a + r (1 - a) / (K - 1) for one that
is right on a share a of real validation images and errs towards all other classes alike. Then it
tells whether probabilities of the teachers would be better over a temperature that is fitted to the
validation images of the work directory: log-likelihood and calibration error on the new patients.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np

from gemix.classifier.decision.config import DecisionConfig
from gemix.classifier.decision.decision import UNFITTED, Decision
from gemix.config import load
from gemix.data.image_set import ImageSet
from gemix.data.prepare import prepare_serial
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.evaluation.classification.probability_rates import expected_calibration_error
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
    workspace = Workspace.at(options.workdir)
    teachers = Teachers.load(workspace.teacher)
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
    print_temperatures(teachers, read_images([workspace.data], "val"), images)


def print_temperatures(teachers: Teachers, validation: ImageSet, new: ImageSet) -> None:
    """Print negative log-likelihood and calibration error on new patients for each teacher."""
    for row, teacher in zip(teachers.rows, teachers.members, strict=True):
        own, logits = teacher.logits(validation.images), teacher.logits(new.images)
        fitted, best = (
            Decision.fit(found, of.labels, of.groups, None, DecisionConfig())
            for found, of in ((own, validation), (logits, new))
        )
        for name, decision in (("none", UNFITTED), ("validation", fitted), ("new", best)):
            probabilities = decision.probabilities(logits)
            likelihood = probabilities[np.arange(len(new)), new.labels]
            print(
                f"{row.name}, temperature of {name} images {decision.temperature:.2f}: "
                f"NLL {-np.log(likelihood).mean():.3f}, calibration error "
                f"{expected_calibration_error(new.labels, probabilities):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
