"""Files that cannot be used: listed in ``quarantine.json``, and counted against a limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gemix.core.errors import DataError
from gemix.data.config import DataConfig
from gemix.data.scan import Quarantined
from gemix.data.sources import Listing
from gemix.io.storage import Store

QUARANTINE = "quarantine.json"

_SHOWN = 5  # files in an error message


def write_quarantine(bad: list[Quarantined], store: Store) -> None:
    """Sort the list by file and write it."""
    bad.sort(key=lambda one: one.source)
    store.write_json(QUARANTINE, [dataclasses.asdict(one) for one in bad])


def check_bad_share(
    bad: Sequence[Quarantined], listing: Listing, config: DataConfig, store: Store
) -> None:
    """Hold the share of bad scans, and of files without a good scan, against the limit.

    The limit, ``config.max_bad_fraction``, holds for the archive and for each class.

    Raises:
        DataError: if a share is above the limit.
    """
    exceeded = [
        f"{whose}{lost} of {total} {unit}"
        for whose, unit, lost, total in _shares(bad, listing)
        # one file of a small class may be bad
        if lost > max(config.max_bad_fraction * total, 1 if whose else 0)
    ]
    if not exceeded:
        return
    also = f" (also {', '.join(exceeded[1:])})" if exceeded[1:] else ""
    shown = "\n".join(f"  {one.source}: {one.reason}" for one in bad[:_SHOWN])
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    raise DataError(
        f"{exceeded[0]} are bad, more than data.max_bad_fraction = {config.max_bad_fraction:g} "
        f"allows{also}:\n{shown}{more}\nAll are listed in {store.url}/{QUARANTINE}; correct the "
        "files or raise data.max_bad_fraction."
    )


def _shares(bad: Sequence[Quarantined], listing: Listing) -> Iterator[tuple[str, str, int, int]]:
    """Yield whose share it is, the unit, and how many of how many are bad."""
    if not bad:
        return
    table, outside = listing.items.table, len(listing.unusable)
    is_bad = np.asarray(pc.is_in(table["key"], pa.array([one.source for one in bad], pa.string())))
    label = table["class_index"].to_numpy()
    files = pc.coalesce(table["location"], table["key"]).combine_chunks().dictionary_encode()
    file = files.indices.to_numpy()
    scans, bad_scans = (
        np.bincount(file[rows], minlength=len(files.dictionary)) for rows in (slice(None), is_bad)
    )
    is_lost = bad_scans == scans
    label_of_file = np.zeros(len(is_lost), label.dtype)
    label_of_file[file] = label
    one_a_file = len(is_lost) == len(is_bad)
    yield "", "files", int(is_lost.sum()) + outside, len(is_lost) + outside
    if not one_a_file:
        yield "", "images", int(is_bad.sum()) + outside, len(is_bad) + outside
    for index, name in enumerate(listing.classes):
        whose = f"class {name!r}: "
        mine = label_of_file == index
        outside = listing.unusable_of_class.get(name, 0)
        yield whose, "files", int(is_lost[mine].sum()) + outside, int(mine.sum()) + outside
        if not one_a_file:
            mine = label == index
            yield whose, "images", int(is_bad[mine].sum()) + outside, int(mine.sum()) + outside
