"""The part of the report about the real images: what they are, what was left out, how they look."""

from __future__ import annotations

import dataclasses
import io

from PIL import Image

from gemix.core.errors import DataError
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.description import Description, Reason, reasons
from gemix.data.shards.manifest import MANIFEST, SPLITS, Manifest
from gemix.io.storage import Store
from gemix.report.figures import histogram_chart

QUARANTINE_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPart:
    """The real images, and what was set aside.

    Attributes:
        manifest: of the real set.
        reasons: why files were set aside, the most frequent reasons first.
        quarantine: the first `QUARANTINE_SHOWN` of the files, (source, reason).
        quarantined: how many there are in all.
        contact_sheet: a PNG of scans before and after; None where there is none.
    """

    manifest: Manifest
    reasons: tuple[Reason, ...]
    quarantine: tuple[tuple[str, str], ...]
    quarantined: int
    contact_sheet: bytes | None

    @property
    def about(self) -> Description:
        """What the dataset card says."""
        return Description(manifest=self.manifest)

    @property
    def totals(self) -> dict[str, int]:
        """Images of each split."""
        return {split: self.manifest.images(split) for split in SPLITS}

    @property
    def missing(self) -> list[str]:
        """What the set does not record, in words."""
        return self.about.missing + ([] if self.contact_sheet else ["contact sheet"])


def data_part(store: Store) -> DataPart | None:
    """Reads what prepare has left; None where it has not finished.

    Raises:
        DataError: if it is damaged.
    """
    if not store.exists(MANIFEST):
        return None
    name = "quarantine.json"
    bad = store.read_json(name) if store.exists(name) else []
    return DataPart(
        manifest=Manifest.load(store),
        reasons=tuple(reasons(bad)),
        quarantine=tuple((e["source"], e["reason"]) for e in bad[:QUARANTINE_SHOWN]),
        quarantined=len(bad),
        contact_sheet=_contact_sheet(store),
    )


def grey_chart(part: DataPart) -> str | None:
    """The histograms of the classes in one panel; None where they are not recorded."""
    levels = part.about.grey_levels.values()
    return histogram_chart([of.shares for of in levels]) if levels else None


def _contact_sheet(store: Store) -> bytes | None:
    if not store.exists(CONTACT_SHEET):
        return None
    data = store.read_bytes(CONTACT_SHEET)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError) as error:
        raise DataError(
            f"{store.url}/{CONTACT_SHEET}: damaged ({error}); prepare again with --overwrite, or "
            "delete it to do without"
        ) from error
    return data
