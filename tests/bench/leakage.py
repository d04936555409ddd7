"""How much of a test set leaks into training when patients are not known, by way of splitting.

``python -m tests.bench.leakage FOLDER`` prepares a folder of class folders and splits it in three
ways, over 20 seeds: slice by slice at random; by 20 blocks of neighbouring files a class; and as
``gemix prepare`` does, by runs of neighbours that look alike. A test image leaks if the 16 x 16
copy of some training image correlates to 0.9 or more with its own. Last it times the search for
near duplicates, all images with all, on one core if OMP_NUM_THREADS is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time

import numpy as np

from gemix.data.config import DataConfig
from gemix.data.image_set import ImageSet
from gemix.data.leakage.near_duplicates import near_pairs
from gemix.data.leakage.perceptual_hash import Fingerprints, fingerprint
from gemix.data.prepare import prepare_serial
from gemix.data.prepare.splits import TEST, TRAIN, assign
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.data.sources.files import natural_key
from gemix.io.storage import Store

SEEDS = 20
BLOCKS = 20
ALIKE = 0.9


def main() -> None:
    """Prints one line a way of splitting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    given = parser.parse_args()
    config = DataConfig(source="folder", path=given.folder)
    with tempfile.TemporaryDirectory() as out:
        prepare_serial(open_source(config), config, Store(out))
        images = read_images([out])
    prints = fingerprint(images.images)
    alike = prints.copies @ prints.copies.T >= ALIKE
    print(f"{len(images)} images, {SEEDS} seeds")
    title = "test share of a class, lowest to highest"
    print(f"{'split by':<10}{'groups':>8}{'leaking':>9}{title:>45}")
    for name, groups in ways(images).items():
        leaks, shares = [], []
        names, group = np.unique(groups, return_inverse=True)
        for seed in range(SEEDS):
            split = assign(
                group,
                names.tolist(),
                images.labels,
                np.full(len(images), -1, np.int8),
                images.classes,
                dataclasses.replace(config, split_seed=seed),
            ).split
            test, train = split == TEST, split == TRAIN
            leaks.append(alike[np.ix_(test, train)].any(axis=1).mean())
            shares += [test[images.labels == label].mean() for label in range(len(images.classes))]
        print(
            f"{name:<10}{len(names):>8}{np.mean(leaks):>9.3f}"
            f"{f'{min(shares):.2f} to {max(shares):.2f} (sd {np.std(shares):.2f})':>45}"
        )
    print(f"near duplicates: {pairs_per_s(prints) / 1e6:.0f} million pairs/s")


def pairs_per_s(prints: Fingerprints) -> float:
    """How many pairs of images are compared in a second: the best of some repetitions."""
    seconds = []
    for _ in range(SEEDS):
        began = time.perf_counter()
        near_pairs(prints, prints)
        seconds.append(time.perf_counter() - began)
    return len(prints) ** 2 / min(seconds)


def ways(images: ImageSet) -> dict[str, list[str]]:
    """A group for each image, by way of splitting."""
    blocks = [""] * len(images)
    for label in range(len(images.classes)):
        rows = np.flatnonzero(images.labels == label).tolist()
        rows.sort(key=lambda row: natural_key(images.sources[row]))
        for place, row in enumerate(rows):
            blocks[row] = f"{label}/{place * BLOCKS // len(rows)}"
    return {"slice": list(images.sources), "block": blocks, "run": list(images.groups)}


if __name__ == "__main__":
    main()
