"""``gemix check``: do two shard sets, or the splits of one, share patients or pictures?"""

from __future__ import annotations

import argparse
import itertools
import sys

from gemix.core.errors import DataError
from gemix.data.leakage.compare_sets import Overlap, compare, overlap_sheet
from gemix.data.shards.manifest import SPLITS, Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store, open_output
from jobs._runtime.command import Command, Request

SHEET = "overlap.png"
RESULT = "overlap.json"
_SHOWN = 5  # shared groups and pairs that are printed


def check(
    first: str, second: str | None = None, *, out: str | None = None, overwrite: bool = False
) -> tuple[Overlap, ...]:
    """Compares two sets, or the splits of one; prints and, with `out`, writes what was found.

    Raises:
        AlreadyFinishedError: if `out` holds a result and `overwrite` is not set.
        DataError: if there is overlap of any kind, after it was printed and written; or if a set
            is damaged, or one set alone has a single split.
    """
    if out is not None and not overwrite:
        open_output(out, RESULT, overwrite=False)
    overlaps = _between_splits(first) if second is None else (_between_sets(first, second),)
    for overlap in overlaps:
        print(_describe(overlap), flush=True)
    if out is not None:
        store = Store(out)
        store.delete(RESULT)  # nothing else: the directory may be that of a set
        store.write_bytes(SHEET, overlap_sheet(overlaps))
        store.write_json(RESULT, {"comparisons": [overlap.to_json() for overlap in overlaps]})
        print(f"check: {store.url}/{RESULT} and {SHEET}", flush=True)
    guilty = [" and ".join(overlap.names) for overlap in overlaps if overlap]
    if guilty:
        raise DataError(
            f"{'; '.join(guilty)}: overlap, so a test on one after training on the other measures "
            "memory; take the shared patients and images out of one side and prepare it again"
        )
    return overlaps


def _between_splits(url: str) -> tuple[Overlap, ...]:
    manifest = Manifest.load(Store(url))
    present = [split for split in SPLITS if manifest.images(split)]
    if len(present) < 2:
        raise DataError(
            f"{url}: all images are of split {', '.join(present)}; name a second set to compare"
        )
    sets = {split: read_images([url], split) for split in present}
    return tuple(
        compare(
            sets[a],
            sets[b],
            names=(a, b),
            splits=([a] * len(sets[a]), [b] * len(sets[b])),
            same_source=True,
        )
        for a, b in itertools.combinations(present, 2)
    )


def _between_sets(first: str, second: str) -> Overlap:
    manifests = Manifest.load(Store(first)), Manifest.load(Store(second))
    a, b = read_images([first]), read_images([second])
    return compare(
        a,
        b,
        names=(first, second),
        splits=(_splits(manifests[0]), _splits(manifests[1])),
        same_source=_same_archive(*manifests),
    )


def _splits(manifest: Manifest) -> list[str]:
    """The split of every image."""
    return [shard.split for shard in manifest.shards for _ in range(shard.rows)]


def _same_archive(a: Manifest, b: Manifest) -> bool:
    """Whether, as far as the manifests tell, both were prepared from the same scans."""
    archives = [(m.classes, m.origin.get("source"), m.origin.get("listed")) for m in (a, b)]
    return archives[0] == archives[1] and None not in archives[0]


def _describe(overlap: Overlap) -> str:
    (a, b), (images_a, images_b) = overlap.names, overlap.images
    lines = [
        f"check: {a} ({images_a} images) and {b} ({images_b} images): "
        f"{len(overlap.shared_groups)} shared groups; of {b}, {overlap.exact} images are in {a} "
        f"too and {overlap.near} more nearly so"
    ]
    if overlap.shared_groups:
        more = ", …" if len(overlap.shared_groups) > _SHOWN else ""
        lines.append(f"  groups: {', '.join(overlap.shared_groups[:_SHOWN])}{more}")
    lines += [
        f"  {'identical' if pair.identical else f'{pair.similarity:.3f}'}: "
        f"{pair.sources[0]} ({pair.splits[0]}), {pair.sources[1]} ({pair.splits[1]})"
        for pair in overlap.worst[:_SHOWN]
    ]
    return "\n".join(lines)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", help="a shard set, a path or s3:// URL")
    parser.add_argument(
        "second", nargs="?", help="another one; without it, the splits of the first are compared"
    )
    parser.add_argument("--out", help="directory for overlap.json and overlap.png")


def _run(request: Request) -> None:
    options = request.options
    check(options.first, options.second, out=options.out, overwrite=request.overwrite)


COMMAND = Command(
    name="check",
    summary="Looks for patients, images and near duplicates that two shard sets share, or two "
    "splits of one set; exits with 1 if there are any.",
    reads="<first> and <second>: what gemix prepare or gemix synthesize left",
    writes="<out>, where given: overlap.json, and overlap.png with the worst pairs side by side",
    costs="minutes for 100 thousand images, one CPU core, the memory of both sets",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
