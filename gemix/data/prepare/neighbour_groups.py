"""Groups of neighbouring slices, where patients are not known.

Files of an archive are mostly in the order of acquisition, so that slices of a patient follow each
other. A run of them ends where two neighbours have little in common; runs that share near
duplicates (:mod:`gemix.data.leakage.near_duplicates`) are of one patient, or of a file saved twice,
and form one group.

On 876 lung CT slices of a public collection of about 110 patients without their names this makes
96 groups. 5% of the test images then have an image with a correlation of 0.9 or more in the
training set; with 20 blocks of equal length a class it is 20%, with a random split 53%
(``tests/bench/leakage.py``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gemix.data.leakage.near_duplicates import near_pairs
from gemix.data.leakage.perceptual_hash import Fingerprints
from gemix.data.map_fn import MapFn
from gemix.data.prepare.index import Index
from gemix.data.shards.manifest import SPLITS
from gemix.io.storage import Store

SAME_BODY = 0.5  # correlation of the 16 x 16 copies of neighbouring slices

_BLOCK = 4096  # images, about, that are compared at a time

_NO_EDGES = np.empty((0, 2), np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourGroups:
    """Groups of images whose patient is not known.

    Attributes:
        rows: int64 [M], the images, ascending.
        group: int64 [M], 0 to the number of groups - 1, in the order of their first images.
        joined: number of runs that near duplicates joined to another one.
    """

    rows: np.ndarray
    group: np.ndarray
    joined: int

    @property
    def first(self) -> np.ndarray:
        """First image of each group, as a row of the index."""
        return self.rows[np.unique(self.group, return_index=True)[1]]


def find_neighbour_groups(index: Index, store: Store, map_fn: MapFn) -> NeighbourGroups:
    """Group neighbours and near duplicates.

    Where the source has official splits, images of two splits are not joined: the lists are trusted
    to separate the patients.

    The time is quadratic in the number of images; `map_fn` makes it parallel, and a process holds
    the copies of two blocks at a time.
    """
    rows = np.flatnonzero(index.group < 0)
    if not len(rows):
        return NeighbourGroups(rows=rows, group=rows, joined=0)
    chained = _chain(index, rows, store)
    _, run = _components(len(rows), chained)
    blocks = _blocks(index, rows)
    near = functools.partial(_near, blocks=blocks, official=index.split[rows], store=store)
    edges = [chained, *map_fn(near, range(len(blocks)), "blocks compared with those before")]
    groups, group = _components(len(rows), np.concatenate(edges))
    return NeighbourGroups(rows=rows, group=group, joined=int(run.max()) + 1 - groups)


def _chain(index: Index, rows: np.ndarray, store: Store) -> np.ndarray:
    """Pair neighbours of one class and split that show one body: int64 [m, 2], in `rows`."""
    kind = index.class_index[rows] * (len(SPLITS) + 1) + index.split[rows]
    pairs, start = [_NO_EDGES], 0
    last = np.empty((0, 0), np.float32)
    for name in index.parts:
        copies = _read(store, [name]).copies
        if not len(copies):
            continue
        both = np.concatenate([last, copies]) if len(last) else copies
        first = start - len(last) + np.arange(len(both) - 1)
        alike = np.einsum("ij,ij->i", both[1:], both[:-1]) >= SAME_BODY
        alike &= kind[first] == kind[first + 1]
        pairs.append(np.stack([first, first + 1], axis=1)[alike])
        start, last = start + len(copies), copies[-1:]
    return np.concatenate(pairs)


def _blocks(index: Index, rows: np.ndarray) -> list[tuple[int, list[str]]]:
    """Return blocks of parts with such images: the index of the first image, names of the parts."""
    blocks: list[tuple[int, list[str]]] = []
    start = end = 0
    for name, count in zip(index.parts, np.bincount(index.part[rows]).tolist(), strict=False):
        if count and (not blocks or end - start >= _BLOCK):
            start = end
            blocks.append((start, []))
        if count:
            blocks[-1][1].append(name)
        end += count
    return blocks


def _near(
    number: int, *, blocks: list[tuple[int, list[str]]], official: np.ndarray, store: Store
) -> np.ndarray:
    """Pair near duplicates of a block with it and those before: int64 [m, 2] as in `_chain`."""
    start, names = blocks[number]
    mine = _read(store, names)
    found = [_NO_EDGES]
    for first, others in blocks[: number + 1]:
        other = mine if first == start else _read(store, others)
        pairs = near_pairs(other, mine) + np.array([first, start])
        found.append(_forest(pairs[official[pairs[:, 0]] == official[pairs[:, 1]]]))
    return np.concatenate(found)


def _forest(pairs: np.ndarray) -> np.ndarray:
    """Reduce pairs to a forest with the same components: of many copies all pairs are near."""
    nodes, places = np.unique(pairs, return_inverse=True)
    _, label = _components(len(nodes), places.reshape(-1, 2))
    first = nodes[np.unique(label, return_index=True)[1]]
    edges = np.stack([first[label], nodes], axis=1)
    return edges[edges[:, 0] != edges[:, 1]]


def _components(count: int, edges: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of components and each node's, numbered by their first nodes."""
    ones = np.ones(len(edges), np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    total, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    rank = np.empty(total, np.int64)
    rank[np.argsort(first)] = np.arange(total)
    return total, rank[label]


def _read(store: Store, names: Sequence[str]) -> Fingerprints:
    """Read the fingerprints of the parts' images of unknown patients."""
    tables = [store.read_columns(name, ["hash", "copy"]) for name in names]
    table = pa.concat_tables(tables)
    return Fingerprints.unpacked(
        table["hash"].drop_null().to_numpy(), table["copy"].drop_null().to_pylist()
    )
