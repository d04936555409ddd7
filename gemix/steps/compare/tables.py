"""The table of a block as Markdown, CSV and LaTeX, and as text to print."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    ("macro_f2", "macro-F2"),
    ("fnr", "FNR"),
    ("missed_disease_rate", "missed disease"),
    ("macro_f1", "macro-F1"),
    ("macro_precision", "precision"),
    ("macro_recall", "recall"),
    ("accuracy", "accuracy"),
    ("macro_auroc", "AUROC"),
    ("sensitivity", "sensitivity"),
    ("brier", "Brier"),
    ("ece", "ECE"),
)


def rows_of(block: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a block's table."""
    shown = [c for c in COLUMNS if any(m["rates"].get(c[0]) is not None for m in block["methods"])]
    header = ["method", *(title for _, title in shown)]
    header += ["macro-F2 difference", "95% of all methods", "p (all)", "finding"]
    rows = []
    for method in block["methods"]:
        if method["failure"] is not None:
            rows.append(
                [method["method"], *["–"] * (len(shown) + 3), f"failed: {method['failure']}"]
            )
            continue
        cells = [_rate(method, key) for key, _ in shown]
        difference = method["differences"].get("macro_f2")
        cells += ["", "", ""] if difference is None else _difference(difference)
        rows.append([method["method"], *cells, method.get("finding") or ""])
    return header, rows


def markdown(block: Mapping[str, Any]) -> str:
    """Return a Markdown table."""
    header, rows = rows_of(block)
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comma_separated(block: Mapping[str, Any]) -> str:
    """Return the table as CSV."""
    sink = io.StringIO()
    header, rows = rows_of(block)
    csv.writer(sink, lineterminator="\n").writerows([header, *rows])
    return sink.getvalue()


def latex(block: Mapping[str, Any]) -> str:
    """Return a LaTeX tabular of the rates, without the finding."""
    header, rows = rows_of(block)
    lines = [[_escaped(cell) for cell in line[:-1]] for line in (header, *rows)]
    body = " \\\\\n".join(" & ".join(line) for line in lines)
    return f"\\begin{{tabular}}{{l{'r' * (len(header) - 2)}}}\n{body} \\\\\n\\end{{tabular}}\n"


def text(block: Mapping[str, Any]) -> str:
    """Return a table of a few columns to print."""
    width = max(len(method["method"]) for method in block["methods"]) + 2
    lines = [f"{'method':<{width}}{'macro-F2':>9}{'FNR':>7}  difference (95% of all methods)"]
    for method in block["methods"]:
        if method["failure"] is not None:
            lines.append(f"{method['method']:<{width}}{'failed':>9}")
            continue
        rates, difference = method["rates"], method["differences"].get("macro_f2")
        line = f"{method['method']:<{width}}{rates['macro_f2']:>9.3f}{rates['fnr']:>7.3f}"
        if difference is not None:
            delta, joint, _ = _difference(difference)
            line += f"  {delta} ({joint}) {method.get('finding') or ''}"
        lines.append(line)
    return "\n".join(lines)


def _rate(method: Mapping[str, Any], key: str) -> str:
    value, spread = method["rates"].get(key), method["deviations"].get(key)
    if value is None:
        return "–"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _difference(difference: Mapping[str, float]) -> list[str]:
    joint = f"{_signed(difference['joint_low'])} to {_signed(difference['joint_high'])}"
    return [_signed(difference["delta"]), joint, f"{difference['p_joint']:.3f}"]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _escaped(cell: str) -> str:
    for sign in "&%_#":
        cell = cell.replace(sign, f"\\{sign}")
    return cell.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
