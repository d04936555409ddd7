"""The section on the comparison of methods."""

from __future__ import annotations

import numpy as np

from gemix.comparison.findings import THRESHOLD_MOVED
from gemix.comparison.paper_layout import (
    RatedMethod,
    Table,
    classifier_title,
    table_1,
    table_2,
)
from gemix.io.comparison_record import ComparedBlock, ComparedMethod, MethodComparison
from gemix.report.charts import curves_chart, difference_chart
from gemix.report.verdict import FNR, MACRO_F2, Metric

_AUROC = (
    Metric(key="disease_auroc", name="AUROC of disease", higher_is_better=True),
    Metric(key="macro_auroc", name="AUROC", higher_is_better=True),
)
_SENSITIVITY = Metric(
    key="sensitivity", name="sensitivity at equal specificity", higher_is_better=True
)


def block_columns(block: ComparedBlock) -> list[Metric]:
    """Return the rates that the page has room for; the tables on disk have more."""
    known = {
        name for row in block.methods for name, value in row.rates.items() if value is not None
    }
    ranking = next((metric for metric in _AUROC if metric.key in known), None)
    shown = [MACRO_F2, FNR, *([ranking] if ranking else []), _SENSITIVITY]
    return [metric for metric in shown if metric.key in known]


def block_title(block: ComparedBlock) -> str:
    """Return ``resnet10t, 74 training patients (25%), 6 draws of them, 2 seeds``."""
    patients = f"{block.patients} training patients"
    if block.fraction < 1:
        draws = "1 draw" if block.draws == 1 else f"{block.draws} draws"
        patients += f" ({block.fraction:.0%}), {draws} of them"
    return f"{block.model}, {patients}, {block.seeds} {'seed' if block.seeds == 1 else 'seeds'}"


def block_charts(block: ComparedBlock) -> list[str]:
    """Draw the differences of each method to the baseline, with intervals of all at once."""
    charts = []
    for metric in (MACRO_F2, FNR):
        differences = {
            row.method: {"delta": found.delta, "low": found.joint_low, "high": found.joint_high}
            for row in block.methods
            if row.finding and (found := row.differences.get(metric.key)) is not None
        }
        if differences:
            charts.append(difference_chart(metric, differences, added=False))
    return charts


def not_better(row: ComparedMethod) -> str:
    """Return the probability that a method is not better, as ``1.2%``; empty if it is unknown."""
    found = row.differences.get("macro_f2")
    if found is None or found.not_above_zero is None:
        return ""
    percent = 100 * found.not_above_zero
    return "< 0.1%" if percent < 0.1 else "> 99.9%" if percent > 99.9 else f"{percent:.1f}%"


def generators_note(row: ComparedMethod) -> str:
    """Return whether a method's intervals hold for other generators."""
    if row.over_generators:
        return f"images of {row.generators} generators, the intervals hold for others"
    images = "one generator" if row.generators == 1 else f"{row.generators} generators"
    return f"images of {images}, the intervals do not cover others"


def paper_layout(comparison: MethodComparison) -> list[Table]:
    """Return the rates in the layouts of the paper's two tables."""
    rated = [
        RatedMethod(
            classifier=classifier_title(block.model, block.fraction),
            method=row.method,
            rates=row.rates,
        )
        for block in comparison.blocks
        for row in block.methods
        if row.failure is None and row.method != THRESHOLD_MOVED
    ]
    return [table_1(rated, comparison.baseline), table_2(rated)]


def learning_curves(comparison: MethodComparison) -> list[str]:
    """Draw macro-F2 against the number of real patients, where several fractions were compared."""
    charts = []
    for model in dict.fromkeys(block.model for block in comparison.blocks):
        blocks = sorted(
            (block for block in comparison.blocks if block.model == model),
            key=lambda block: block.patients,
        )
        if len(blocks) < 2:
            continue
        points: dict[str, list[tuple[int, float]]] = {}
        for block in blocks:
            for row in block.methods:
                if (value := row.rates.get("macro_f2")) is not None:
                    points.setdefault(row.method, []).append((block.patients, value))
        curves = {
            name: [(np.array([x for x, _ in found]), np.array([y for _, y in found]))]
            for name, found in points.items()
        }
        title = f"{model}: macro-F2 by training patients"
        charts.append(curves_chart(title, curves, xlabel="real training patients"))
    return charts
