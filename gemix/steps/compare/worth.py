"""The worth of methods, from the blocks of a comparison over several fractions of the patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gemix.comparison.method import HELD_BACK
from gemix.comparison.worth import LearningCurve


def worth_of(blocks: Sequence[Mapping[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Return what each method is worth in macro-F2, in each block.

    Returns:
        Rows with `model`, `fraction`, `method`; `equivalent_patients` with its interval (`low`,
        `high`), where the model was compared on two fractions or more; and `of_ceiling`, the gain
        as a share of that of ``held-back``, where that was compared and its gain is shown.
    """
    rows = []
    for model in dict.fromkeys(block["model"] for block in blocks):
        mine = [b for b in blocks if b["model"] == model and b["failure"] is None]
        reference = {b["patients"]: _by_name(b)[baseline]["rates"]["macro_f2"] for b in mine}
        curve = LearningCurve(list(reference), list(reference.values()))
        for block in mine:
            methods = _by_name(block)
            ceiling = _difference(methods.get(HELD_BACK))
            for name, method in methods.items():
                if (found := _difference(method)) is None or "finding" not in method:
                    continue
                base, row = reference[block["patients"]], {}
                if len(reference) > 1:
                    worth = curve.worth(
                        block["patients"],
                        *(base + found[key] for key in ("delta", "low", "high")),
                    )
                    row["equivalent_patients"] = dataclasses.asdict(worth)
                if ceiling and ceiling["joint_low"] > 0 and name != HELD_BACK:
                    row["of_ceiling"] = found["delta"] / ceiling["delta"]
                if row:
                    place = {"model": model, "fraction": block["fraction"], "method": name}
                    rows.append(place | row)
    return rows


def _by_name(block: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {row["method"]: row for row in block["methods"] if row["failure"] is None}


def _difference(method: Mapping[str, Any] | None) -> Mapping[str, float] | None:
    return None if method is None else method["differences"].get("macro_f2")
