"""Charts of the page as inline SVG, in the colours and the font of the page.

matplotlib writes fixed colours; the sentinel colours below become CSS variables, so that a chart
reads well on light and dark backgrounds. Each chart is one panel of about 360 pixels.
"""

from __future__ import annotations

import html
import importlib.resources
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gemix.evaluation.label_fidelity.measure import Bin
from gemix.report.verdict import Metric, method_name

SERIES = 6  # colours that the page defines; they repeat for more methods
_VARIABLES = {"#010101": "--ink", "#020202": "--muted", "#030303": "--rule"} | {
    f"#0a0a{index:02x}": f"--series-{index}" for index in range(SERIES)
}
INK, MUTED, RULE = list(_VARIABLES)[:3]
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gemix",
    "text.parse_math": False,  # a class may have a $ in its name
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
}
_SIZE = (3.8, 2.6)  # inches, at 72 points
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def color(index: int) -> str:
    """Return the sentinel colour of series `index`."""
    return f"#0a0a{index % SERIES:02x}"


def difference_chart(
    metric: Metric, differences: Mapping[str, Mapping[str, float]], *, added: bool = True
) -> str:
    """Draw differences to the baseline, with their intervals.

    Args:
        metric: what is compared.
        differences: `delta`, `low`, `high` for each method.
        added: whether methods are names of images that are added to real ones, the baseline.
    """
    title = f"{metric.name}: difference to {'real only' if added else 'the baseline'}"
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(title, 0.9, len(differences))
        for row, difference in enumerate(differences.values()):
            low, high = difference["low"], difference["high"]
            axes.plot([low, high], [row, row], color=color(row + 1), linewidth=2.2)
            axes.plot(difference["delta"], row, "o", color=color(row + 1), markersize=6)
        axes.axvline(0, color=MUTED, linewidth=1)
        names = list(differences)
        if added:
            names = [method_name(name).removeprefix("real ") for name in differences]
        axes.set_yticks(range(len(differences)), names)
        axes.set_ylim(len(differences) - 0.4, -0.6)
        reach = 1.15 * max(
            abs(d[key]) for d in differences.values() for key in ("delta", "low", "high")
        )
        axes.set_xlim(-max(reach, 0.01), max(reach, 0.01))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        better = "better  →" if metric.higher_is_better else "←  better"
        axes.set_xlabel(better, loc="right" if metric.higher_is_better else "left")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return svg_element(figure, f"difference-{metric.key}" + ("" if added else "-methods"))


def curves_chart(
    title: str,
    curves: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    *,
    xlabel: str,
    unit_range: bool = False,
) -> str:
    """Draw lines over time, one colour a name: runs thin and, if there are several, the mean bold.

    Args:
        title: of the panel.
        curves: for each name one (x, y) pair of equally long arrays a run.
        xlabel: what x counts.
        unit_range: fixes the y axis to 0 .. 1.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(title)
        axes.grid(axis="y")
        for index, (name, runs) in enumerate(curves.items()):
            alone = len(runs) == 1
            for x, y in runs:
                width, alpha = (1.8, 1.0) if alone else (0.8, 0.45)
                label = name if alone else None
                axes.plot(x, y, color=color(index), linewidth=width, alpha=alpha, label=label)
            if not alone:
                x, y = _mean(runs)
                axes.plot(x, y, color=color(index), linewidth=2, label=name)
        if unit_range:
            axes.set_ylim(0, 1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=xlabel == "epoch"))
        axes.set_xlabel(xlabel)
        if len(curves) > 1:
            axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(-0.02, -0.22))
        return svg_element(figure, re.sub(r"[^a-z0-9]+", "-", title.lower()))


def histogram_chart(shares: Sequence[np.ndarray]) -> str:
    """Draw the histogram of grey levels: one line a class, from colour 1 on.

    The axis is a square root and ends above the second highest bin: the highest is mostly
    background.

    Args:
        shares: for each class the share of its pixels in n equal bins of 0 to 255, float64 [n].
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = panel("Grey levels of the images")
        axes.grid(axis="y")
        for index, values in enumerate(shares):
            edges = np.linspace(0, 256, len(values) + 1)
            line = color(index + 1)
            axes.stairs(100 * values, edges, baseline=None, color=line, linewidth=1.4)
        top = max(np.sort(values)[-2] or values.max() for values in shares)
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set_ylim(0, 115 * top)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.set_xlim(0, 256)
        axes.set_xticks([0, 64, 128, 192, 255])
        axes.set_xlabel("black  →  white")
        return svg_element(figure, "grey-levels")


def calibration_chart(
    title: str, quantity: str, curves: Mapping[str, Sequence[Bin]], largest: float
) -> str:
    """Draw what is seen against what was asked for, one colour a name, with intervals.

    Args:
        title: of the panel.
        quantity: for the labels of the axes: "weight of a class".
        curves: bins of each name; color 0 is left to real images.
        largest: end of both axes.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(title, 2.6)
        axes.plot([0, largest], [0, largest], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for index, (name, bins) in enumerate(curves.items(), 1):
            x, y = [one.asked for one in bins], [one.seen for one in bins]
            axes.vlines(
                x, [one.low for one in bins], [one.high for one in bins], color=color(index)
            )
            axes.plot(x, y, "o-", color=color(index), linewidth=1.4, markersize=4, label=name)
        axes.set_xlim(0, largest)
        axes.set_ylim(0, largest)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"{quantity} asked for")
        axes.set_ylabel(f"{quantity} seen")
        axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(-0.02, -0.22))
        return svg_element(figure, re.sub(r"[^a-z0-9]+", "-", title.lower()))


def validation_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], key: str
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return one (epoch, value) curve a seed for each method, from the classifiers' histories."""
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for method, runs in histories.items():
        found = [curve for run in runs if (curve := log_curve(run, "epoch", key)) is not None]
        if found:
            curves[method_name(method)] = found
    return curves


def log_curve(
    log: Sequence[Mapping[str, float | None]], x: str, y: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return columns `x` and `y` of the lines that have both; None if no line has."""
    pairs = [
        (line[x], line[y]) for line in log if line.get(x) is not None and line.get(y) is not None
    ]
    if not pairs:
        return None
    xs, ys = np.array(pairs, dtype=np.float64).T
    return xs, ys


def svg_file(figure: Figure) -> bytes:
    """Return the figure as an SVG file that reads on light and dark, alone or as an image."""
    element = svg_element(figure, "figure")
    theme = importlib.resources.files("gemix.report").joinpath("theme.css").read_text("utf-8")
    width, height = (72 * inches for inches in figure.get_size_inches())
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
    style = (
        f"<style>\n{theme}svg {{ background: var(--paper); font-family: var(--font); }}\n</style>"
    )
    attributes, content = element.removeprefix("<svg ").split(">", 1)
    return f"{start}{attributes}>\n{style}{content}".encode()


def _mean(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of runs, up to the length of the shortest."""
    length = min(len(x) for x, _ in runs)
    return runs[0][0][:length], np.mean([y[:length] for _, y in runs], axis=0)


def panel(title: str, base: float | None = None, rows: int = 0) -> tuple[Figure, Axes]:
    """Return a figure of one panel, to be drawn within ``matplotlib.rc_context(STYLE)``.

    Args:
        title: above the panel.
        base, rows: its height in inches without rows, and rows of a third of an inch; by default
            the height of all others.
    """
    width, height = _SIZE
    if base is not None:
        height = base + 0.32 * rows
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_title(title, pad=8)
    return figure, axes


def svg_element(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element that does not affect others on the page.

    Args:
        figure: the title of its first axes becomes the name for screen readers.
        name: unique on the page; a prefix of the element's ids.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    title = html.escape(figure.axes[0].get_title(loc="left"))
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{title}">',
        text,
        count=1,
        flags=re.DOTALL,
    )
    # matplotlib's style rule would reach the whole page, and its ids are unique in one chart only
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r" font-family: [^;\"]+;", "", text)
    for sentinel, variable in _VARIABLES.items():
        text = text.replace(sentinel, f"var({variable})")
    return text
