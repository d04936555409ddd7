"""Records of the pictures, Grad-CAM maps and t-SNE map of an evaluation's best classifier.

They lie beside ``evaluation.json``. No image is named: the picture has no patient and no file.
"""

from __future__ import annotations

import dataclasses

from gemix.io.records import file_error, read_record
from gemix.io.storage import Store

EXPLANATION, EXPLANATION_VIEW = "explanation.json", "explanation.png"
PROJECTION = "projection.json"
_REMEDY = "run gemix evaluate --overwrite, or delete it to leave this section out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownImage:
    """A test image: its class, the class predicted and the probability of that, 0 to 1."""

    label: int
    predicted: int
    probability: float

    @property
    def is_hit(self) -> bool:
        """Whether it was predicted correctly."""
        return self.label == self.predicted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """``explanation.json``.

    Attributes:
        classifier: name of the best classifier, such as ``softmax-seed1``.
        tested, missed: numbers of test images, and of those predicted wrong.
        images: the most confident misses, then hits. ``explanation.png`` has a column for each:
            the image above, and below its map of the predicted class, black to white, if there are
            maps.
        layer, cells: of the maps; None if there are none.
        missing_packages: optional ones that were not installed where the evaluation ran.
        no_maps, no_projection: why there are no maps, or no ``projection.json``, though the
            packages are there; None if there are.
    """

    classifier: str
    tested: int
    missed: int
    images: tuple[ShownImage, ...]
    layer: str | None = None
    cells: tuple[int, int] | None = None
    missing_packages: tuple[str, ...] = ()
    no_maps: str | None = None
    no_projection: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """``projection.json``: a t-SNE map of a classifier's features, a row of each list an image.

    Attributes:
        classifier: whose features before its last layer these are.
        method: of the synthetic images; None if there are none.
        x, y: place in the map.
        label: class; of synthetic images the one that was asked for most.
        source: train, test or synthetic.
    """

    classifier: str
    method: str | None = None
    x: tuple[float, ...]
    y: tuple[float, ...]
    label: tuple[int, ...]
    source: tuple[str, ...]


def read_explanation(store: Store) -> Explanation | None:
    """Read ``explanation.json``; return None if an earlier version evaluated.

    Raises:
        DataError: if it is damaged or lacks a field; so does the other reader.
    """
    if not store.exists(EXPLANATION):
        return None
    return read_record(store, EXPLANATION, Explanation, _REMEDY)


def read_projection(store: Store) -> Projection | None:
    """Read ``projection.json``; return None if there is none."""
    if not store.exists(PROJECTION):
        return None
    found = read_record(store, PROJECTION, Projection, _REMEDY)
    if len({len(column) for column in (found.x, found.y, found.label, found.source)}) != 1:
        raise file_error(store, PROJECTION, "x, y, label and source differ in length", _REMEDY)
    return found
