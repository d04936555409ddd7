"""Write ``sweep.json``, and format the table that a sweep prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from gemix.io.results import REAL, SWEEP
from gemix.io.storage import Store
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.steps.sweep.opening import Sweep
from gemix.sweep.objective import Objective
from gemix.sweep.records import TrialRecord, best_record, format_params, pareto_front, ranking
from gemix.sweep.winner import TOP


def write_results(sweep: Sweep, confirmed: Mapping[str, Any] | None) -> dict[str, Any]:
    """Write ``sweep.json``; return its content.

    `best` and `top` are feasible trials by macro-F2 on validation, `front` those of a Pareto front.
    They were chosen for being lucky too: only fresh seeds and the test set say what they are worth.
    :mod:`gemix.io.sweep_record` has the types.

    Args:
        confirmed: what :func:`gemix.steps.sweep.confirm.confirm` found; None if nothing was.
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
        "importance": study.importance(),
        "confirmed": confirmed,
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


def describe_winner(confirmed: Mapping[str, Any]) -> str:
    """Return what fresh seeds and the test set said, as text."""
    lines = [f"{'on fresh seeds':<20} {'search':>7} {'fresh':>7} {'FNR':>6}"]
    for row in confirmed["candidates"]:
        searched, fresh = row["searched"]["macro_f2"], row["fresh"]["macro_f2"]
        lines.append(
            f"{row['name']:<20} {searched:>7.3f} {fresh:>7.3f} {row['fresh']['fnr']:>6.3f}  "
            f"{row['outcome']}"
        )
    test, winner = confirmed["test"], confirmed["winner"]
    lines.append(
        f"winner: {winner['name']}; macro-F2 in the search less that on fresh seeds: "
        f"{winner['overfitted']:+.3f}"
    )
    for name, row in test["results"].items():
        line = f"test, {name}: macro-F2 {row['macro_f2']:.3f}, FNR {row['fnr']:.3f}"
        if difference := row["difference_to_real"].get("macro_f2"):
            low, high = difference["low"], difference["high"]
            line += f", {difference['delta']:+.3f} ({low:+.3f} to {high:+.3f}) to real images alone"
        lines.append(line)
    if winner["method"] != REAL:
        lines.append(
            "to promote it: gemix audit -w ... <workdir>/sweep/winner, then gemix promote --sweep "
            "-w ..."
        )
        lines.append(f"to train and register more of its kind: {_command(winner)}")
    return "\n".join(lines)


def _command(winner: Mapping[str, Any]) -> str:
    """Return the command that trains and registers classifiers by the winner's settings."""
    settings = [f"synthesis.methods=[{winner['method']}]"]
    settings += [f"{path}={json.dumps(value)}" for path, value in winner["settings"].items()]
    settings.append("synthesis.count=null")  # the ratio says how many
    return f"gemix pipeline --redo -c ... -w ... {shlex.join(settings)}"
