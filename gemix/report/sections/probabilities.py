"""The part on predicted probabilities: reliability diagrams of what the classifiers said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gemix.evaluation.classification.probability_rates import BINS, Reliability, reliability
from gemix.io.predictions import Predictions
from gemix.report.charts import MUTED, STYLE, color, svg_element
from gemix.report.verdict import method_name

_SIZE = (3.8, 3.7)  # inches


def reliability_charts(predictions: Mapping[str, Sequence[Predictions]]) -> list[str]:
    """Draw confidence against accuracy for each method, with and without temperature scaling.

    Args:
        predictions: of each method, one a seed. Those of earlier versions, which did not keep what
            was before scaling, are drawn as they are.
    """
    return [
        _chart(method, of, color(index)) for index, (method, of) in enumerate(predictions.items())
    ]


def _chart(method: str, predictions: Sequence[Predictions], ink: str) -> str:
    curves = {"": _curve(predictions, [one.probabilities for one in predictions])}
    before = [one.uncalibrated for one in predictions if one.uncalibrated is not None]
    if len(before) == len(predictions):
        without = _curve(predictions, before)
        if any(not np.array_equal(one.probabilities, one.uncalibrated) for one in predictions):
            curves = {"scaled, ": curves[""], "without scaling, ": without}
    classes = predictions[0].probabilities.shape[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3.2, 1))
        axes.set_title(f"Reliability: {method_name(method)}", pad=8)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for (label, (found, error)), line in zip(curves.items(), (ink, MUTED), strict=False):
            held = found.counts > 0
            axes.plot(
                found.confidence[held],
                found.accuracy[held],
                "o-" if line == ink else "o:",
                color=line,
                linewidth=1.6 if line == ink else 1.2,
                markersize=4.5 if line == ink else 3.5,
                markerfacecolor=line if line == ink else "none",
                label=f"{label}ECE {error:.3f}",
            )
        _counts(below, next(iter(curves.values()))[0], ink)
        # the most probable of K classes has a probability of 1 / K or more
        axes.set_xlim(BINS // classes / BINS, 1)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share that is right")
        below.set_xlabel("probability of the most probable class")
        names = axes.get_legend_handles_labels()
        below.legend(*names, loc="upper left", bbox_to_anchor=(-0.02, -0.72))
        return svg_element(figure, f"reliability-{method}")


def _curve(
    predictions: Sequence[Predictions], probabilities: Sequence[np.ndarray]
) -> tuple[Reliability, float]:
    """Return the bins of all seeds together, and the mean over the seeds of the error."""
    pairs = [(one.labels, of) for one, of in zip(predictions, probabilities, strict=True)]
    pooled = reliability(*(np.concatenate(column) for column in zip(*pairs, strict=True)))
    return pooled, float(np.mean([reliability(*pair).error for pair in pairs]))


def _counts(axes, found: Reliability, ink: str) -> None:
    """Draw the number of images of each bin as a bar with its number."""
    middles = (np.arange(BINS) + 0.5) / BINS
    axes.bar(middles, found.counts, width=0.86 / BINS, color=ink, alpha=0.55)
    for x, count in zip(middles, found.counts.tolist(), strict=True):
        if count:
            text = f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
            axes.annotate(
                text, (x, count), (0, 1), textcoords="offset points", ha="center", fontsize=6.5
            )
    axes.set_ylim(0, 1.25 * found.counts.max())
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
