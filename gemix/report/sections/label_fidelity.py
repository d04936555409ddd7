"""The section on label fidelity: do the images show the labels that were asked for?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gemix.report.charts import calibration_chart
from gemix.synthesis.fidelity import SetFidelity


def fidelity_charts(sets: Mapping[str, SetFidelity]) -> list[str]:
    """Draw weights and entropies seen against those asked for, one colour a method."""
    if not sets:
        return []
    views = {name: found.teachers[0].synthetic for name, found in sets.items()}
    classes = len(next(iter(views.values())).agreement_by_class)
    return [
        calibration_chart(
            "Weights of classes",
            "weight",
            {name: view.weights for name, view in views.items()},
            1.0,
        ),
        calibration_chart(
            "Entropy of labels, in nats",
            "entropy",
            {name: view.entropies for name, view in views.items()},
            math.log(classes),
        ),
    ]
