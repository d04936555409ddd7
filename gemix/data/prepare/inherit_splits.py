"""The sides that an earlier set of the archive has settled, for the same archive grown larger.

What a network learned from, or was judged by, must not change sides because scans were added. The
name of a patient keeps its side by itself (:mod:`gemix.data.prepare.splits`). A run of files of
unknown patients has no name that lasts: a file in front of it gives it another. So sides can be
taken from the set that was prepared before.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.data.sources import Listing, ScanRefs
from gemix.io.storage import Store


def settle(listing: Listing, url: str) -> Listing:
    """The listing with the splits that an earlier set gives its patients and scans, and no others.

    A scan is known by its patient, or where the source has none, by its key: the path of its file.

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
    settled = splits.take(pc.coalesce(of_patient, of_key).combine_chunks())
    known = len(settled) - settled.null_count
    if not known:
        raise DataError(
            f"data.splits_from {url}: knows none of the {len(settled)} scans by patient or path; "
            "name the set that was prepared from this archive before, or leave it empty"
        )
    column = table.column_names.index("split")
    items = ScanRefs(table.set_column(column, table.schema.field("split"), settled))
    note = f"{known} of {len(settled)} scans are on the side that they have in data.splits_from"
    return dataclasses.replace(listing, items=items, notes=(*listing.notes, note))


def _known(store: Store, manifest: Manifest) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Patients, keys and splits of the set's images, row by row."""
    tables = [
        store.read_columns(shard.name, ["patient", "source"]).append_column(
            "split", pa.repeat(shard.split, shard.rows)
        )
        for shard in manifest.shards
    ]
    whole = pa.concat_tables(tables).combine_chunks()
    return tuple(whole[name].combine_chunks() for name in ("patient", "source", "split"))
