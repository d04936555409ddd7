"""Tables of a comparison as Markdown, CSV and LaTeX, and as text to print."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from gemix.comparison.findings import THRESHOLD_MOVED
from gemix.comparison.paper_layout import RatedMethod, classifier_title, table_1, table_2
from gemix.comparison.worth import format_patients
from gemix.io.comparison_record import EquivalentPatients
from gemix.report.verdict import signed

COLUMNS = (
    ("macro_f2", "macro-F2"),
    ("fnr", "macro-FNR"),
    ("missed_disease_rate", "missed disease"),
    ("macro_f1", "macro-F1"),
    ("macro_precision", "precision"),
    ("macro_recall", "recall"),
    ("accuracy", "accuracy"),
    ("macro_auroc", "AUROC"),
    ("disease_auroc", "AUROC of disease"),
    ("sensitivity", "sensitivity at equal specificity"),
    ("specificity", "specificity"),
    ("brier", "Brier"),
    ("ece", "ECE"),
)


def rows_of(block: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a block's table."""
    done = [method for method in block["methods"] if method["failure"] is None]
    shown = [c for c in COLUMNS if any(m["rates"].get(c[0]) is not None for m in done)]
    header = ["method", *(title for _, title in shown), "macro-F2 difference", "95%"]
    header += ["95% of all methods", "p of all", "p (Holm)", "P(not better)"]
    header += ["steps", "real exposures", "finding"]
    rows = []
    for method in block["methods"]:
        if method["failure"] is not None:
            cells = ["–"] * (len(header) - 2)
            rows.append([method["method"], *cells, f"failed: {method['failure']}"])
            continue
        cells = [_rate(method, key) for key, _ in shown]
        cells += difference_cells(method)
        steps, exposures = method.get("steps"), method.get("real_exposures")
        cells += ["" if steps is None else f"{steps}"]
        cells += ["" if exposures is None else f"{exposures:.1f}"]
        rows.append([method["method"], *cells, note_of(method, block)])
    return header, rows


def worth_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each method whose worth is known."""
    lines = []
    for row in rows:
        parts = []
        if found := row.get("equivalent_patients"):
            worth = EquivalentPatients(**found)
            middle, low, high = (
                format_patients(value, worth) for value in (worth.patients, worth.low, worth.high)
            )
            parts.append(f"worth {middle} real patients ({low} to {high})")
        if (share := row.get("of_ceiling")) is not None:
            parts.append(f"{signed(100 * share, 0)}% of the gain of held-back patients")
        lines.append(f"{row['method']}, {row['model']} at {row['fraction']:g}: {', '.join(parts)}")
    return lines


def difference_cells(method: Mapping[str, Any]) -> list[str]:
    """Return difference, interval, joint interval, two p-values, probability of not being better.

    The last four are of methods alone.
    """
    difference = method["differences"].get("macro_f2")
    if difference is None:
        return [""] * 6
    cells = [signed(difference["delta"]), _interval(difference, "low", "high")]
    if "finding" not in method:  # the baseline at another threshold
        return [*cells, "", "", "", ""]
    joint = _interval(difference, "joint_low", "joint_high")
    share = difference["not_above_zero"]
    return [
        *(*cells, joint, f"{difference['p_joint']:.3f}", f"{difference['p_holm']:.3f}"),
        "–" if share is None else f"{share:.3f}",
    ]


def note_of(method: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    """Return the finding, and what generators limit it: how many there are, whom they know."""
    known, generators = method.get("generator_patients") or 0, method.get("generators")
    notes = [method.get("finding")]
    if generators and not method["over_generators"]:
        notes.append("1 generator" if generators == 1 else f"{generators} generators")
        notes[-1] += ", the intervals do not cover others"
    elif generators:
        notes.append(f"intervals over {generators} generators")
    if known > block["patients"]:
        notes.append(f"generator of {known} patients")
    return "; ".join(filter(None, notes))


def block_files(block: Mapping[str, Any]) -> dict[str, str]:
    """Return a block's table by the ending of its file; LaTeX leaves the finding out."""
    header, rows = rows_of(block)
    found = _files(header, rows)
    return found | {"tex": _latex(header[:-1], [row[:-1] for row in rows])}


def paper_files(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the rates in the layouts of the paper's two tables, by name of the file."""
    rated = [
        RatedMethod(
            classifier=classifier_title(block["model"], block["fraction"]),
            method=method["method"],
            rates=method["rates"],
        )
        for block in results["blocks"]
        for method in block["methods"]
        if method["failure"] is None and method["method"] != THRESHOLD_MOVED
    ]
    tables = {
        "paper-table-1": table_1(rated, results["baseline"]),
        "paper-table-2": table_2(rated),
    }
    return {
        f"{name}.{ending}": content
        for name, table in tables.items()
        for ending, content in _files(table.header, table.rows, names=2).items()
    }


def _files(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1
) -> dict[str, str]:
    return {
        "md": _markdown(header, rows),
        "csv": _comma_separated(header, rows),
        "tex": _latex(header, rows, names=names),
    }


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _comma_separated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([header, *rows])
    return sink.getvalue()


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """Return a tabular whose first columns are names, to the left, and the others numbers."""
    lines = [[_escaped(cell) for cell in line] for line in (header, *rows)]
    body = " \\\\\n".join(" & ".join(line) for line in lines)
    columns = "l" * names + "r" * (len(header) - names)
    return f"\\begin{{tabular}}{{{columns}}}\n{body} \\\\\n\\end{{tabular}}\n"


def text(block: Mapping[str, Any]) -> str:
    """Return a table of a few columns to print."""
    if block["failure"] is not None:
        return f"nothing can be compared: {block['failure']}"
    width = max(len(method["method"]) for method in block["methods"]) + 2
    lines = [f"{'method':<{width}}{'macro-F2':>9}{'FNR':>7}  difference (95% of all methods)"]
    for method in block["methods"]:
        if method["failure"] is not None:
            lines.append(f"{method['method']:<{width}}{'failed':>9}  {method['failure']}")
            continue
        rates = method["rates"]
        line = f"{method['method']:<{width}}{rates['macro_f2']:>9.3f}{rates['fnr']:>7.3f}"
        delta, alone, joint, *_ = difference_cells(method)
        if delta:
            line += f"  {delta} ({joint or alone}) {note_of(method, block)}"
        lines.append(line)
    return "\n".join(lines)


def _rate(method: Mapping[str, Any], key: str) -> str:
    value, spread = method["rates"].get(key), method["deviations"].get(key)
    if value is None:
        return "–"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _interval(difference: Mapping[str, float], low: str, high: str) -> str:
    return f"{signed(difference[low])} to {signed(difference[high])}"


def _escaped(cell: str) -> str:
    for sign in "&%_#":
        cell = cell.replace(sign, f"\\{sign}")
    return cell.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
