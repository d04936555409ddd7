"""The recipes by the name that ``classifier.recipe`` takes: one line each.

Entries are references that are resolved on first use, so that names cost no import of PyTorch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemix.classifier.recipes.base import Recipe, RecipeContext

_PACKAGE = "gemix.classifier.recipes"

RECIPES: dict[str, str] = {
    "mix": f"{_PACKAGE}.mix:Mix",
    "weight": f"{_PACKAGE}.weight:Weight",
    "curriculum": f"{_PACKAGE}.curriculum:Curriculum",
    "pretrain": f"{_PACKAGE}.pretrain:Pretrain",
}

PLANNED = ("curriculum", "pretrain")
"""Those whose share of synthetic images changes with the step: a part of a training has another."""


def build_recipe(name: str, context: RecipeContext) -> Recipe:
    """Return the recipe of a registered name; without images of both kinds it is ``mix``."""
    return _recipe(name, context)(context)


def real_share(name: str, context: RecipeContext) -> float:
    """Return the share of real images among all that a training by a recipe shows."""
    return _recipe(name, context).real_share(context)


def _recipe(name: str, context: RecipeContext) -> type[Recipe]:
    one_kind = not context.real or not context.synthetic
    return pkgutil.resolve_name(RECIPES["mix" if one_kind else name])
