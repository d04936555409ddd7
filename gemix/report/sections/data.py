"""The report's section on the real images: source, exclusions, appearance."""

from __future__ import annotations

import dataclasses
import io

from PIL import Image

from gemix.core.errors import DataError
from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.description import Description, Reason, reasons
from gemix.data.shards.manifest import MANIFEST, SPLITS, Manifest
from gemix.io.results import read_quarantine
from gemix.io.storage import Store
from gemix.report.charts import histogram_chart

QUARANTINE_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPart:
    """The real images, and the files that were set aside.

    Attributes:
        manifest: of the real set.
        reasons: why files were set aside, most frequent first.
        quarantine: the first `QUARANTINE_SHOWN` files, (source, reason).
        quarantined: number of all of them.
        contact_sheet: a PNG of scans before and after preprocessing, if there is one.
    """

    manifest: Manifest
    reasons: tuple[Reason, ...]
    quarantine: tuple[tuple[str, str], ...]
    quarantined: int
    contact_sheet: bytes | None

    @property
    def about(self) -> Description:
        """Content of the dataset card."""
        return Description(manifest=self.manifest)

    @property
    def totals(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: self.manifest.images(split) for split in SPLITS}

    @property
    def missing(self) -> list[str]:
        """Names of what the set does not record."""
        return self.about.missing + ([] if self.contact_sheet else ["contact sheet"])


def data_part(store: Store) -> DataPart | None:
    """Read the prepared data; return None if prepare has not finished.

    Raises:
        DataError: if they are damaged.
    """
    if not store.exists(MANIFEST):
        return None
    bad = read_quarantine(store)
    return DataPart(
        manifest=Manifest.load(store),
        reasons=tuple(reasons(bad)),
        quarantine=tuple((e["source"], e["reason"]) for e in bad[:QUARANTINE_SHOWN]),
        quarantined=len(bad),
        contact_sheet=_contact_sheet(store),
    )


def grey_chart(part: DataPart) -> str | None:
    """Draw the grey-level histograms of the classes; return None if they are not recorded."""
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
            "delete it to leave it out"
        ) from error
    return data
