"""The labels that a generator was given for the images of a set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import weights_of
from gemix.io.storage import Store


def read_asked_labels(
    url: str, split: str | None = None, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Return the labels asked for, float32 [N, K], in the order of the set's images.

    Where they are unknown these are the labels of training.

    Args:
        split: the split to read, None for all.
        classes: the order of the classes; None for that of the set.
    """
    store, found = Store(url), []
    manifest = Manifest.load(store)
    order = manifest.class_order(classes or manifest.classes)
    for shard in manifest.shards_of(split):
        table = store.read_columns(shard.name, ["asked_label", "soft_label"])
        name = "soft_label" if table["asked_label"].null_count else "asked_label"
        found.append(weights_of(table[name], len(order))[:, order])
    return np.concatenate(found).astype(np.float32)
