"""Check two shard sets, or the splits of one, for shared patients and images."""

from __future__ import annotations

import itertools
import logging

from gemix.core.errors import DataError
from gemix.data.leakage.compare_sets import SetComparison, compare_sets, overlap_sheet
from gemix.data.shards.manifest import SPLITS, Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store, open_output

log = logging.getLogger("gemix.check")

SHEET = "overlap.png"
RESULT = "overlap.json"


def check(
    first: str, second: str | None = None, *, out: str | None = None, overwrite: bool = False
) -> tuple[SetComparison, ...]:
    """Compare two sets, or the splits of one.

    Args:
        first, second: shard sets, paths or ``s3://`` URLs.
        out: directory for ``overlap.json`` and a picture of the worst pairs.

    Returns:
        One comparison, or one for each pair of splits; true where anything is shared.

    Raises:
        AlreadyFinishedError: if `out` holds a result and `overwrite` is not set.
        DataError: if a set is damaged, or one set alone has a single split.
    """
    if out is not None and not overwrite:
        open_output(out, RESULT, overwrite=False)
    overlaps = _between_splits(first) if second is None else (_between_sets(first, second),)
    if out is not None:
        store = Store(out)
        store.delete(RESULT)  # nothing else: the directory may be that of a set
        store.write_bytes(SHEET, overlap_sheet(overlaps))
        store.write_json(RESULT, {"comparisons": [overlap.to_json() for overlap in overlaps]})
        log.info("%s/%s and %s", store.url, RESULT, SHEET)
    return overlaps


def _between_splits(url: str) -> tuple[SetComparison, ...]:
    manifest = Manifest.load(Store(url))
    present = [split for split in SPLITS if manifest.images(split)]
    if len(present) < 2:
        raise DataError(
            f"{url}: all images are of split {', '.join(present)}; name a second set to compare"
        )
    sets = {split: read_images([url], split) for split in present}
    return tuple(
        compare_sets(
            sets[a],
            sets[b],
            names=(a, b),
            splits=([a] * len(sets[a]), [b] * len(sets[b])),
            same_source=True,
        )
        for a, b in itertools.combinations(present, 2)
    )


def _between_sets(first: str, second: str) -> SetComparison:
    manifests = Manifest.load(Store(first)), Manifest.load(Store(second))
    a, b = read_images([first]), read_images([second])
    return compare_sets(
        a,
        b,
        names=(first, second),
        splits=(_splits(manifests[0]), _splits(manifests[1])),
        same_source=_same_archive(*manifests),
    )


def _splits(manifest: Manifest) -> list[str]:
    """Return the split of every image."""
    return [shard.split for shard in manifest.shards for _ in range(shard.rows)]


def _same_archive(a: Manifest, b: Manifest) -> bool:
    """Return whether both were prepared from the same scans, as far as the manifests tell."""
    archives = [(m.classes, m.origin.get("source"), m.origin.get("listed")) for m in (a, b)]
    return archives[0] == archives[1] and None not in archives[0]
