"""Write ``sweep.json``, and format the table that a sweep prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemix.io.results import SWEEP
from gemix.io.storage import Store
from gemix.steps.sweep.opening import Sweep
from gemix.sweep.objective import Objective
from gemix.sweep.records import TrialRecord, best_record, format_params, pareto_front, ranking
from gemix.sweep.space import PUBLISHED, REFERENCE

TOP = 3  # trials that are to be run again on fresh seeds


def write_results(sweep: Sweep) -> dict[str, Any]:
    """Write ``sweep.json``; return its content.

    `best` and `top` are feasible trials by macro-F2 on validation, `front` those of a Pareto front.
    They were chosen for being lucky too: only fresh seeds and the test set say what they are worth.
    """
    study = sweep.study
    records = study.records()
    best = best_record(records)
    results = {
        "study": study.config.study,
        "objective": study.config.objective,
        "space": study.space.describe(),
        "best": None if best is None else best.number,
        "top": [record.number for record in ranking(records)[:TOP]],
        "front": [r.number for r in pareto_front(records)] if study.objective.pareto else None,
        "reference": _number_of(records, REFERENCE),
        "published_default": _number_of(records, PUBLISHED),
        "trials": [
            {**record.to_json(), "settings": sweep.settings(dict(record.params))[0]}
            for record in records
            if record.state != "interrupted"
        ],
    }
    Store(sweep.workspace.sweep).write_json(SWEEP, results)
    return results


def table(records: Sequence[TrialRecord], objective: Objective, rows: int = 12) -> str:
    """Return the best trials and the first two as text, and how many ended how."""
    named = [r for r in records if r.name is not None and r.state == "complete"]
    best = pareto_front(records) if objective.pareto else ranking(records)
    lines = [f"{'trial':>5} {'macro-F2':>9} {'FNR':>6}  parameters"]
    for record in best[:rows]:
        lines.append(_row(record))
    lines += [_row(record) for record in named if record not in best[:rows]]
    states = [record.state for record in records]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    ended = ", ".join(f"{count} {state}" for state, count in counts.items())
    infeasible = sum(r.state == "complete" and not r.is_feasible for r in records)
    return "\n".join([*lines, f"trials: {ended}; {infeasible} of the complete ones infeasible"])


def _row(record: TrialRecord) -> str:
    params = format_params(record.params)
    note = f" ({record.name})" if record.name else ""
    broken = [name for name, value in record.constraints.items() if value > 0]
    note += f" infeasible: {', '.join(broken)}" if broken else ""
    scores = record.scores
    return f"{record.number:>5} {scores.macro_f2:>9.3f} {scores.fnr:>6.3f}  {params}{note}"


def _number_of(records: Sequence[TrialRecord], name: str) -> int | None:
    found = (r.number for r in records if r.name == name and r.state == "complete")
    return next(found, None)
