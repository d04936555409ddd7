"""Settings of the promotion of a classifier."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from gemix.core.config_schema import Config, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardConfig(Config):
    """Texts of a model card that a person must write; it is incomplete while one is empty."""

    intended_use: Annotated[str, "What the model is for, and for whom; and what it is not for."] = (
        ""
    )
    limits: Annotated[
        str, "Known limits: patients, scanners and diseases that it was not tested on."
    ] = ""
    licence: Annotated[str, "Licence of the weights, which the training images may restrict."] = ""
    contact: Annotated[str, "Who answers for the model: a person or an office, and an address."] = (
        ""
    )

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the texts that nobody has written."""
        names = [field.name for field in dataclasses.fields(self)]
        return tuple(name for name in names if not getattr(self, name).strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromotionConfig(Config):
    """The gate that a champion has passed, and the texts of its card."""

    fnr_margin: Annotated[
        float,
        Range(0, 1),
        "How far the interval of FNR and missed-disease rate may reach above the champion's.",
    ] = 0.02
    card: Annotated[CardConfig, "What only a person can say of the model."] = CardConfig()
