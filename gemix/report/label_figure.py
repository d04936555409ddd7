"""The figure of what a label sampler did: the labels of a set on the simplex and as histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import weights_of
from gemix.io.results import LABEL_FIGURE
from gemix.io.storage import Store
from gemix.report.charts import MUTED, RULE, SERIES, STYLE, color, svg_file

COUNTED = 20_000  # labels of the histograms
POINTS = 400  # labels on the simplex
_BINS = 30
_LONGEST = 20  # characters of a name at a corner
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks, in powers of ten
_PANEL = (3.5, 3.0)  # inches
_CORNERS = np.array([[0, 0], [1, 0], [0.5, math.sqrt(3) / 2]])


def draw_set(store: Store, manifest: Manifest) -> bytes:
    """Draw the labels that a synthetic set was asked for, at most the first :data:`COUNTED`.

    Args:
        store: with the shards that `manifest` lists.
        manifest: of the set.

    Returns:
        An SVG file.
    """
    thetas, dominants, count = [], [], 0
    for shard in manifest.shards:
        table = store.read_columns(shard.name, ["asked_label", "class_index"])
        thetas.append(weights_of(table["asked_label"], len(manifest.classes)))
        dominants.append(table["class_index"].to_numpy())
        count += len(table)
        if count >= COUNTED:
            break
    theta, dominant = (np.concatenate(parts)[:COUNTED] for parts in (thetas, dominants))
    if manifest.origin.get("synthesis", {}).get("labels", "asked") != "asked":
        dominant = theta.argmax(axis=1)  # class_index is of the labels that were given
    total = manifest.images()
    counted = f"{total:,}" if total == len(theta) else f"the first {len(theta):,} of {total:,}"
    title = f"{manifest.origin['method']}: {counted} labels"
    return label_figure(theta, dominant, manifest.classes, title)


def label_figure(
    theta: np.ndarray, dominant: np.ndarray, classes: Sequence[str], title: str
) -> bytes:
    """Draw soft labels: of three classes on the simplex; top weight and entropy as histograms.

    Args:
        theta: float [N, K], rows sum to 1; N at least 1.
        dominant: int [N], the dominant class of each; its colour is the class's on the page.
        classes: K names, K at least 2.
        title: of the figure.

    Returns:
        An SVG file.
    """
    theta = theta.astype(np.float64)
    simplex = len(classes) == 3
    with matplotlib.rc_context(STYLE):
        width, height = _PANEL
        figure = Figure(figsize=(width * (3 if simplex else 2), height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        panels = list(figure.subplots(1, 3 if simplex else 2))
        if simplex:
            _draw_simplex(panels.pop(0), theta, dominant, classes)
        for axes, (name, values, low, high) in zip(panels, _statistics(theta), strict=True):
            _draw_histogram(axes, name, values, dominant, classes, low, high)
        top, entropy = panels
        top.set_xticks(*_ticks(1 / len(classes), f"1/{len(classes)}", 1, "1"))
        limit = math.log(len(classes))
        entropy.set_xticks(*_ticks(0, "0", limit, f"log {len(classes)}"))
        if not simplex and len(classes) <= SERIES:
            figure.legend(*top.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        return svg_file(figure)


def read_figure(store: Store) -> bytes | None:
    """Read the figure of a set; return None for a set of an earlier version, which has none.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(LABEL_FIGURE):
        return None
    data = store.read_bytes(LABEL_FIGURE)
    try:
        ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(
            f"{store.url}/{LABEL_FIGURE}: damaged ({error}); synthesize again with --overwrite, or "
            "delete it to leave it out"
        ) from error
    return data


def _statistics(theta: np.ndarray) -> list[tuple[str, np.ndarray, float, float]]:
    """Return name, values [N] and range of the top weight and of the entropy in nats."""
    classes = theta.shape[1]
    entropy = -(theta * np.log(np.maximum(theta, 1e-300))).sum(axis=1)
    return [
        ("Top weight", theta.max(axis=1), 1 / classes, 1),
        ("Entropy in nats", entropy, 0, math.log(classes)),
    ]


def _draw_simplex(
    axes: Axes, theta: np.ndarray, dominant: np.ndarray, classes: Sequence[str]
) -> None:
    """Draw labels of three classes as points in a triangle whose corners are the classes."""
    axes.fill(*_CORNERS.T, fill=False, edgecolor=RULE, linewidth=1)
    center = _CORNERS.mean(axis=0)
    for first in range(3):  # from here on another class is the largest
        middle = (_CORNERS[first] + _CORNERS[(first + 1) % 3]) / 2
        axes.plot(*np.transpose([center, middle]), color=RULE, linewidth=0.6)
    shown = theta[:POINTS]
    beside = {"xycoords": "axes fraction", "color": MUTED, "fontsize": 8, "va": "top"}
    axes.annotate(f"{len(shown)} labels\nas points", (0, 1), **beside)
    for index, name in enumerate(classes):
        labels = shown[dominant[:POINTS] == index]
        places, counts = np.unique(labels.round(3), axis=0, return_counts=True)
        for equal in np.unique(counts):  # one size at a time makes a file of a fifth of the bytes
            axes.plot(
                *(places[counts == equal] @ _CORNERS).T,
                "o",
                markersize=2.8 * equal**0.25,
                color=color(index + 1),
                alpha=0.65,
                markeredgewidth=0,
            )
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        across, up = (("left", "top"), ("right", "top"), ("center", "bottom"))[index]
        axes.annotate(
            f"{short} {np.mean(dominant == index):.0%}",
            _CORNERS[index],
            xytext=(0, 8 if up == "bottom" else -8),
            textcoords="offset points",
            ha=across,
            va=up,
            color=color(index + 1),
        )
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_histogram(
    axes: Axes,
    name: str,
    values: np.ndarray,
    dominant: np.ndarray,
    classes: Sequence[str],
    low: float,
    high: float,
) -> None:
    """Draw the share of labels in each bin, stacked by dominant class where colours suffice."""
    axes.set_title(f"{name}, mean {values.mean():.2f}", pad=8)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    edges = np.linspace(low, high, _BINS + 1)
    inside = values.clip(low, high)  # float32 labels may be a rounding error outside
    one_color = len(classes) > SERIES
    groups = [inside] if one_color else [inside[dominant == k] for k in range(len(classes))]
    floor = np.zeros(_BINS)
    for index, group in enumerate(groups):
        heights = floor + 100 * np.histogram(group, edges)[0] / len(values)
        axes.stairs(
            heights,
            edges,
            baseline=floor,
            fill=True,
            color=color(index + 1),
            alpha=0.8,
            label=None if one_color else classes[index],
        )
        floor = heights
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(0, 1.05 * floor.max())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.yaxis.set_major_formatter("{x:g}%")
    axes.tick_params(colors=MUTED, length=0)


def _ticks(low: float, low_name: str, high: float, high_name: str) -> tuple[list[float], list[str]]:
    """Return places and names of ticks: both ends, and round numbers that keep away from them."""
    room = 0.12 * (high - low)
    round_ones = [
        float(value)
        for value in MaxNLocator(5, steps=_STEPS).tick_values(low, high)
        if low + room < value < high - room
    ]
    return [low, *round_ones, high], [low_name, *(f"{v:g}" for v in round_ones), high_name]
