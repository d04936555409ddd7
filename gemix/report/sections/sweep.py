"""The section on the sweep of T, b and N."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gemix.io.sweep_record import PUBLISHED, REFERENCE, SweepResults, SweepTrial
from gemix.report.charts import INK, MUTED, STYLE, color, panel, svg_element

_LOGARITHMIC = (
    *("temperature", "dirichlet_dominant", "dirichlet_other", "pair_beta"),
    *("synthetic_weight", "lr"),
)
_NAMES = {
    "ratio": "ratio N",
    "temperature": "temperature T",
    "bias": "bias b",
    "method": "label sampler",
    "mixture": "mixture α",
}


def sweep_charts(sweep: SweepResults) -> list[str]:
    """Draw the history of the search, a slice for each parameter, T against b, and the front."""
    ended = [trial for trial in sweep.trials if trial.scores is not None]
    if not ended:
        return []
    charts = [_history(ended)]
    for name in dict.fromkeys(name for trial in ended for name in trial.params):
        shown = [trial for trial in ended if name in trial.params]
        if len({trial.params[name] for trial in shown}) > 1:
            charts.append(_slice(name, shown))
    soft = [trial for trial in ended if {"temperature", "bias"} <= trial.params.keys()]
    if len(soft) > 1:
        charts.append(_plane(soft))
    charts.append(
        _scatter(
            "macro-F2 and false-negative rate",
            ended,
            x=lambda trial: trial.scores.fnr,
            y=lambda trial: trial.scores.macro_f2,
            labels=("false-negative rate", "macro-F2"),
        )
    )
    return charts


def ranked_trials(sweep: SweepResults, most: int = 12) -> list[SweepTrial]:
    """Return the feasible trials, the best first, and the first points of the search."""
    feasible = [trial for trial in sweep.trials if trial.feasible and trial.scores]
    best = sorted(feasible, key=lambda trial: (-trial.scores.macro_f2, trial.number))[:most]
    named = [trial for trial in sweep.trials if trial.name and trial.scores]
    return [*best, *(trial for trial in named if trial not in best)]


def params_text(trial: SweepTrial) -> str:
    """Return ``N 0.5, softmax, T 1.3, b 2``."""
    short = {"ratio": "N", "temperature": "T", "bias": "b", "method": "", "label_source": "labels"}
    parts = []
    for name, value in trial.params.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{short.get(name, _title(name))} {text}".strip())
    return ", ".join(parts)


def states_text(sweep: SweepResults) -> str:
    """Return ``30 trials: 21 complete, 9 pruned``."""
    states = [trial.state for trial in sweep.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} trials: {counts}"


def _title(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _slice(name: str, trials: Sequence[SweepTrial]) -> str:
    """Draw a parameter, a number or a choice, against macro-F2 of the trials that read it."""
    values = [trial.params[name] for trial in trials]
    choices = sorted(set(values)) if isinstance(values[0], str) else None
    return _scatter(
        f"macro-F2 by {_title(name)}",
        trials,
        x=lambda trial: choices.index(trial.params[name]) if choices else trial.params[name],
        y=lambda trial: trial.scores.macro_f2,
        labels=(_title(name), "macro-F2"),
        log=name in _LOGARITHMIC,
        choices=choices,
    )


def _marked(
    axes: Axes,
    trials: Sequence[SweepTrial],
    x: Callable[[SweepTrial], float],
    y: Callable[[SweepTrial], float],
) -> None:
    """Draw trials: feasible ones filled, others hollow, the first points named by their shape."""
    for feasible in (True, False):
        for name, marker in ((None, "o"), (REFERENCE, "s"), (PUBLISHED, "D")):
            chosen = [t for t in trials if t.feasible == feasible and t.name == name]
            if chosen:
                axes.plot(
                    [x(trial) for trial in chosen],
                    [y(trial) for trial in chosen],
                    marker,
                    color=color(1 if name is None else 2),
                    markerfacecolor=color(1 if name is None else 2) if feasible else "none",
                    markersize=5,
                    alpha=0.85,
                )


def _history(trials: Sequence[SweepTrial]) -> str:
    title = "macro-F2 by trial; line: best feasible so far"
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(title)
        axes.grid(axis="y")
        _marked(axes, trials, lambda trial: trial.number, lambda trial: trial.scores.macro_f2)
        best = np.maximum.accumulate(
            [trial.scores.macro_f2 if trial.feasible else -np.inf for trial in trials]
        )
        numbers = [trial.number for trial in trials]
        shown = np.isfinite(best)
        axes.step(np.array(numbers)[shown], best[shown], where="post", color=INK, linewidth=1.2)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("trial")
        return svg_element(figure, "sweep-history")


def _scatter(
    title: str,
    trials: Sequence[SweepTrial],
    *,
    x: Callable[[SweepTrial], float],
    y: Callable[[SweepTrial], float],
    labels: tuple[str, str],
    log: bool = False,
    choices: Sequence[str] | None = None,
) -> str:
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(title)
        axes.grid(axis="y")
        _marked(axes, trials, x, y)
        if log:
            _set_logarithmic(axes)
        if choices:
            axes.set_xticks(range(len(choices)), [choice.replace("_", " ") for choice in choices])
            axes.set_xlim(-0.5, len(choices) - 0.5)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        return svg_element(figure, f"sweep-{labels[0].replace(' ', '-')}")


def _set_logarithmic(axes: Axes) -> None:
    """Let the x axis be logarithmic, with plain numbers; the page draws no mathematics."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plane(trials: Sequence[SweepTrial]) -> str:
    """Draw T against b; larger circles are better trials."""
    values = np.array([trial.scores.macro_f2 for trial in trials])
    low, high = values.min(), values.max()
    sizes = 15 + 150 * (values - low) / (high - low if high > low else 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = panel("T and b: the larger, the higher macro-F2")
        for feasible in (True, False):
            chosen = [i for i, trial in enumerate(trials) if trial.feasible == feasible]
            axes.scatter(
                [trials[i].params["temperature"] for i in chosen],
                [trials[i].params["bias"] for i in chosen],
                s=sizes[chosen],
                facecolor=color(1) if feasible else "none",
                edgecolor=MUTED if feasible else color(1),
                linewidth=0.8,
                alpha=0.75,
            )
        _set_logarithmic(axes)
        axes.set_xlabel("temperature T")
        axes.set_ylabel("bias b")
        return svg_element(figure, "sweep-plane")
