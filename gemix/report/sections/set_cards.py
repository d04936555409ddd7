"""The report's section on the synthetic sets: the main rows of their cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gemix.data.shards.manifest import Manifest
from gemix.evaluation.image_quality.registry import metric_outputs
from gemix.io.storage import Store
from gemix.synthesis.set_card.markdown import metric_text, proportion
from gemix.synthesis.set_card.record import (
    SYNTHETIC,
    ImageComparison,
    SetCard,
    TeacherSummary,
    read_card,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetRow:
    """A row of the table, as text.

    Attributes:
        name: of the set, or of the real images that it is to be compared with.
        images: in the set.
        agreement: share of images that show what was asked for, its interval, and the share of
            real images on which the teacher is right; None where nobody looked.
        metrics: against the real training images, in the order of the registry.
        transfer: macro-F2 on real test images after training on the set alone, and on real images.
        audit: the verdict; None where there is none.
    """

    name: str
    images: str
    metrics: tuple[str, ...]
    agreement: tuple[str, str, str] | None = None
    transfer: tuple[str, str] | None = None
    audit: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetCardsPart:
    """The sets that have a card of their present content.

    Attributes:
        rows: one a set.
        reference: real validation images in their place; None where they were not compared.
        extractor: of the metrics' features; None where nothing was compared.
    """

    rows: tuple[SetRow, ...]
    reference: SetRow | None
    extractor: str | None

    @property
    def labels(self) -> list[str]:
        """Names of the metrics with an arrow to their good direction."""
        return [f"{o.label} {'↑' if o.higher_is_better else '↓'}" for o in metric_outputs()]


def set_cards(sets: Mapping[str, str]) -> SetCardsPart | None:
    """Read the cards of finished sets, given as directories by method; None where none has one.

    Raises:
        DataError: for a damaged card.
    """
    cards = []
    for url in sets.values():
        store = Store(url)
        card = read_card(store, Manifest.load(store).digest)
        if card is not None:
            cards.append(card)
    if not cards:
        return None
    found = [one for one in cards[0].comparisons if (one.of, one.against) == ("val", "train")]
    return SetCardsPart(
        rows=tuple(_row(card) for card in cards),
        reference=SetRow(
            name="real validation images", images=f"{found[0].images:,}", metrics=_metrics(found)
        )
        if found
        else None,
        extractor=cards[0].comparisons[0].extractor if cards[0].comparisons else None,
    )


def _row(card: SetCard) -> SetRow:
    against_train = [
        one for one in card.comparisons if (one.of, one.against) == (SYNTHETIC, "train")
    ]
    rates = {rate.rate: rate for rate in card.transfer.rates} if card.transfer else {}
    rate = rates.get("macro_f2")
    shown = rate is not None and None not in (rate.real, rate.synthetic)
    return SetRow(
        name=card.method,
        images=f"{card.images:,}",
        metrics=_metrics(against_train),
        agreement=_agreement(card.fidelity[0]) if card.fidelity else None,
        transfer=(f"{rate.synthetic:.3f}", f"{rate.real:.3f}") if shown else None,
        audit=card.audit.verdict if card.audit else None,
    )


def _agreement(seen: TeacherSummary) -> tuple[str, str, str]:
    share, _, interval = proportion(seen.agreement).partition(" (")
    return share, interval.rstrip(")"), proportion(seen.ceiling).partition(" (")[0]


def _metrics(comparisons: Sequence[ImageComparison]) -> tuple[str, ...]:
    return tuple(
        metric_text(comparisons[0], output.name, output.format, output.error)
        if comparisons
        else "–"
        for output in metric_outputs()
    )
