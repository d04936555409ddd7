"""The trainings of a comparison, and the blocks in which methods are compared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from gemix.comparison.config import CompareConfig
from gemix.comparison.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One training.

    Attributes:
        method: as :meth:`gemix.comparison.method.Method.parse` reads it.
        model: timm model.
        fraction: of the training patients.
        draw: of those patients, from 0.
        seed: of the training.
        generator: number of the generator that made its synthetic images, where there are several.
    """

    method: str
    model: str
    fraction: float
    draw: int
    seed: int
    generator: int | None = None

    @property
    def name(self) -> str:
        """Name in logs and messages."""
        share = "" if self.fraction == 1 else f", {self.fraction:g} of the patients, #{self.draw}"
        made = "" if self.generator is None else f", generator {self.generator}"
        return f"{self.method}, {self.model}{share}, seed {self.seed}{made}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Trainings of all methods that are compared with each other.

    Attributes:
        draws: of patients; more than one only below fraction 1.
        units: of each method, those of the first draw first.
        generators: of each method, which the trainings of a draw take in turn.
        retrained: methods whose generator learned from one draw of patients, each draw's anew.
    """

    model: str
    fraction: float
    draws: int
    units: dict[str, tuple[Unit, ...]]
    generators: dict[str, int]
    retrained: frozenset[str] = frozenset()


def plan(config: CompareConfig, model: str, first_seed: int) -> list[Block]:
    """Return the blocks of a comparison: one for each model and fraction.

    Args:
        model: where ``compare.models`` is empty.
        first_seed: of the trainings.
    """
    blocks = []
    made = config.made_sets if config.generator == "retrained" else ()
    retrained = frozenset(m for m in config.methods if Method.parse(m).synthetic in made)
    generators = {m: config.generators_of(Method.parse(m)) for m in config.methods}
    for name, fraction in itertools.product(config.models or (model,), config.fractions):
        draws = 1 if fraction == 1 else config.draws
        units = {
            method: tuple(
                Unit(
                    method=method,
                    model=name,
                    fraction=fraction,
                    draw=draw,
                    seed=first_seed + s,
                    generator=s % number if number > 1 else None,
                )
                for draw in range(draws)
                for s in range(config.seeds)
            )
            for method, number in generators.items()
        }
        blocks.append(
            Block(
                model=name,
                fraction=fraction,
                draws=draws,
                units=units,
                generators=generators,
                retrained=retrained if fraction < 1 else frozenset(),
            )
        )
    return blocks


def units_of(blocks: Sequence[Block]) -> list[Unit]:
    """Return all trainings, draw by draw and seed by seed, so that methods are met side by side."""
    return [
        unit
        for block in blocks
        for side_by_side in zip(*block.units.values(), strict=True)
        for unit in side_by_side
    ]
