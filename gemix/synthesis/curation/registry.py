"""The curation rules by name: one line each.

Entries are references, so that the settings, which know the names, cost no import of PyTorch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.synthesis.curation.base import CurationRule

RULES: dict[str, str] = {
    "memorized": "gemix.synthesis.curation.memorized:Memorized",
    "near_duplicate": "gemix.synthesis.curation.near_duplicate:NearDuplicate",
    "realism": "gemix.synthesis.curation.realism:Realism",
    "discriminator": "gemix.synthesis.curation.discriminator:Discriminator",
}


def open_rule(name: str) -> CurationRule:
    """Return the rule of a name in :data:`RULES`."""
    rule: CurationRule = pkgutil.resolve_name(RULES[name])()
    return rule
