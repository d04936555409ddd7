"""Splits inherited from an earlier set, for the same archive with more scans.

Images that a network was trained or tested on must not change splits because scans were added.
Patients that are known keep their splits by their names (:mod:`gemix.data.prepare.splits`). Groups
of neighbouring files have no lasting names: a file in front gives a group another one. So splits
can be taken from the set that was prepared before.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import Listing, ScanRefs
from gemix.io.storage import Store


def inherit_splits(listing: Listing, url: str) -> Listing:
    """Return the listing with the splits that an earlier set gives its patients and scans.

    A scan is known by its patient, or where the source has none, by its key: the path of its file.
    Other scans have no split.

    Args:
        url: the directory of the earlier set, a path or an ``s3://`` URL.

    Raises:
        DataError: if there is no such set, or it shares nothing with the listing.
    """
    store = Store(url)
    patients, keys, splits = _known(store, Manifest.load(store))
    table = listing.items.table
    of_patient = pc.index_in(table["group"], patients, skip_nulls=True)
    of_key = pc.if_else(pc.is_null(table["group"]), pc.index_in(table["key"], keys), None)
    inherited = splits.take(pc.coalesce(of_patient, of_key).combine_chunks())
    known = len(inherited) - inherited.null_count
    if not known:
        raise DataError(
            f"data.splits_from {url}: knows none of the {len(inherited)} scans by patient or path; "
            "name the set that was prepared from this archive before, or leave it empty"
        )
    column = table.column_names.index("split")
    items = ScanRefs(table.set_column(column, table.schema.field("split"), inherited))
    note = f"{known} of {len(inherited)} scans keep the split that they have in data.splits_from"
    return dataclasses.replace(listing, items=items, notes=(*listing.notes, note))


def _known(store: Store, manifest: Manifest) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return patients, keys and splits of the set's images, row by row."""
    tables = [
        store.read_columns(shard.name, ["patient", "source"]).append_column(
            "split", pa.repeat(shard.split, shard.rows)
        )
        for shard in manifest.shards
    ]
    whole = pa.concat_tables(tables).combine_chunks()
    return tuple(whole[name].combine_chunks() for name in ("patient", "source", "split"))
