"""The rules of decision by the name that ``decision.rule`` takes: one line each.

Entries are references that are resolved on first use, so that names cost no import of SciPy.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.classifier.decision.base import Rule

_PACKAGE = "gemix.classifier.decision"

RULES: dict[str, str] = {
    "most-probable": f"{_PACKAGE}.most_probable:threshold",
    "specificity": f"{_PACKAGE}.specificity:threshold",
    "sensitivity": f"{_PACKAGE}.sensitivity:threshold",
}


def load_rule(name: str) -> Rule:
    """Return the rule of a registered name."""
    return pkgutil.resolve_name(RULES[name])
