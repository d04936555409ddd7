"""One .npz file in the layout of MedMNIST: images, labels and official splits in arrays.

Yang et al., "MedMNIST v2", Scientific Data 2023. Patients are not in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.preprocessing.decode import MAX_SIDE, MIN_SIDE
from gemix.data.scan import Scan
from gemix.data.shards.manifest import SPLITS
from gemix.data.sources.base import Listing
from gemix.data.sources.folder_names import normalize_class
from gemix.data.sources.medmnist.npz import NpzArchive
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.io.storage import Store

_ENDING = ".npz"
_MOST_SHRINKAGE = 100  # CT images were packed to 1/14 at most; deflate can pack to 1/1032
_Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images uint8 [N, H, W] and labels int64 [N] of each split."""


class MedMnistSource:
    """The arrays ``{train,val,test}_{images,labels}`` of one file, its splits kept.

    Class names come from a JSON file of the same name, ending in ``.json``, with a list of names
    or an object ``{"0": "name"}``; without one they are the labels, "0" and so on.

    Args:
        path: the ``.npz`` file, a local path or an ``s3://`` URL.

    Raises:
        DataError: for another ending.
    """

    def __init__(self, path: str):
        self.store, self.name = Store.of_file(path)
        if not self.name.endswith(_ENDING):
            raise DataError(f"data.path {path!r}: one {_ENDING} file of MedMNIST is wanted")
        self._cached: _Arrays | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": None}

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """Read the file; see :class:`gemix.data.sources.base.Source`."""
        arrays = self._arrays()
        present = {int(label) for _, labels in arrays.values() for label in np.unique(labels)}
        names = self._names()
        if names is None:
            names = {label: str(label) for label in present}
        strange = sorted(present - names.keys())
        if strange:
            raise DataError(
                f"{self._where}: label {strange[0]}, but {self._json} names only {len(names)} "
                "classes; add its name there"
            )
        kept = sorted(present)
        if not kept:
            raise DataError(f"{self._where}: no image in any split; copy the file again")
        if len(kept) == 1:
            raise DataError(
                f"{self._where}: only one class, {names[kept[0]]!r}; images of two "
                "or more classes are needed"
            )
        untrained = [names[k] for k in kept if k not in arrays["train"][1]]
        if untrained:
            # images drawn from other splits one by one would part the slices of a patient
            raise DataError(
                f"{self._where}: train_labels has no image of class {', '.join(untrained)}; take "
                "the whole file of the data set"
            )
        items = ScanRefs.of(_items(arrays, kept, self.store.file_versions()[self.name]))
        counts = ", ".join(f"{split} {len(labels)}" for split, (_, labels) in arrays.items())
        notes = [
            f"found {len(items)} images in {self.name} ({counts})",
            "patients are not known: official splits, where kept, are trusted to keep them apart",
        ]
        missing = [names[label] for label in sorted(names.keys() - present)]
        if missing:
            notes.append(f"no image of class {', '.join(missing)} was found; it is left out")
        return Listing(
            classes=tuple(names[label] for label in kept),
            items=items,
            listed=len(items),
            notes=tuple(notes),
        )

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`.

        Raises:
            DataError: if the file cannot be read any more.
        """
        split, _, index = item.key.partition("/")
        images, _ = self._arrays()[split]
        return Scan(pixels=images[int(index)].copy(), is_hounsfield=False, box=item.box)

    @property
    def _where(self) -> str:
        return f"{self.store.url}/{self.name}"

    @property
    def _json(self) -> str:
        return self.name.removesuffix(_ENDING) + ".json"

    def _names(self) -> dict[int, str] | None:
        """Return class names by label, None without the JSON file."""
        if not self.store.exists(self._json):
            return None
        tree = self.store.read_json(self._json)
        if isinstance(tree, list):
            tree = {str(label): name for label, name in enumerate(tree)}
        wanted = isinstance(tree, dict) and tree.keys() == {str(k) for k in range(len(tree))}
        names = list(tree.values()) if wanted else []
        if not (names and all(isinstance(n, str) and n.strip() for n in names)):
            raise DataError(
                f"{self.store.url}/{self._json}: wanted a list of class names or an object "
                'with the keys "0", "1" and so on'
            )
        named = {int(label): normalize_class(name) for label, name in tree.items()}
        if len(set(named.values())) < len(named):
            raise DataError(f"{self.store.url}/{self._json}: two classes have the same name")
        return named

    def _arrays(self) -> _Arrays:
        """Return the checked arrays, read once a process."""
        if self._cached is None:
            if not self.store.exists(self.name):
                raise DataError(f"data.path {self._where}: no such file; correct data.path")
            archive = NpzArchive(self.store.read_bytes(self.name), self._where)
            self._cached = {split: self._split(archive, split) for split in SPLITS}
        return self._cached

    def _split(self, archive: NpzArchive, split: str) -> tuple[np.ndarray, np.ndarray]:
        images = self._images(archive, f"{split}_images")
        return images, self._labels(archive, split, len(images))

    def _images(self, archive: NpzArchive, name: str) -> np.ndarray:
        header = archive.header(name)
        shape, what = header.shape, f"{self._where}: array {name} is {header}"
        is_grey = len(shape) == 3
        if header.dtype != np.uint8 or not (is_grey or shape[3:] == (3,)) or shape[0] < 0:
            raise DataError(f"{what}; wanted: grey images, uint8 [N, H, W]")
        if max(shape[1:3]) > MAX_SIDE or min(shape[1:3]) < MIN_SIDE:
            raise DataError(f"{what}; sides from {MIN_SIDE} to {MAX_SIDE} pixels are read")
        images = archive.read(name, _MOST_SHRINKAGE)
        if is_grey:
            return images
        if (images != images[..., :1]).any():
            raise DataError(
                f"{what} and its channels differ: colour images, no CT; take a data set of grey "
                "images (OrganAMNIST, say) or save one channel as uint8 [N, H, W]"
            )
        return images[..., 0].copy()

    def _labels(self, archive: NpzArchive, split: str, images: int) -> np.ndarray:
        header = archive.header(f"{split}_labels")
        shape, what = header.shape, f"{self._where}: array {split}_labels is {header}"
        if len(shape) == 2 and shape[1] > 1:
            raise DataError(f"{what}: several labels an image; one class an image is wanted")
        if header.dtype.kind not in "iu" or not shape or shape[1:] not in ((), (1,)):
            raise DataError(f"{what}; wanted: integers [N] or [N, 1]")
        if shape[0] != images:
            raise DataError(
                f"{self._where}: {images} {split}_images but {shape[0]} {split}_labels; write the "
                "file again, one label an image"
            )
        # equal labels shrink to nothing, but there are no more of them than images
        labels = archive.read(f"{split}_labels", math.inf)
        if labels.size and labels.min() < 0:
            raise DataError(f"{what} with the label {labels.min()}; labels count from 0")
        return labels.reshape(-1).astype(np.int64)


def _items(arrays: _Arrays, labels_kept: Sequence[int], stamp: str) -> Iterator[ScanRef]:
    """Yield items class by class; within a class split by split, in the order of the file."""
    for class_index, label in enumerate(labels_kept):
        for split, (images, labels) in arrays.items():
            height, width = images.shape[1:]
            for index in np.flatnonzero(labels == label):
                yield ScanRef(
                    key=f"{split}/{index:06d}",
                    class_index=class_index,
                    split=split,
                    box=(0, 0, width, height),
                    stamp=stamp,
                )
