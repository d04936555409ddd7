"""The images that an audit compares: of the set, of those it was learned from, and held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.core.rng import Stream, permutation
from gemix.data.leakage.near_duplicates import find_copies
from gemix.data.leakage.perceptual_hash import thumbnails
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.partial_reading import read_rows
from gemix.data.shards.schema import weights_of
from gemix.evaluation.privacy.config import AuditConfig
from gemix.evaluation.privacy.draws import Draw
from gemix.evaluation.privacy.measure import RealSample
from gemix.io.audit_record import AuditedImages, LearnedFrom
from gemix.io.storage import Store
from gemix.zoo import drawn_images

_COLUMNS = ("patient", "checksum", "source", "soft_label")
_SPLITS = ("train", "val")  # the test split is for the classifiers alone


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows of shard sets, whose images are read when they are needed.

    Attributes:
        sets: the sets.
        place: int64 [N, 3]: which set, which of its shards, which row there.
        groups, checksums, sources: of each, [N].
        soft_labels: float32 [N, K].
    """

    sets: Sequence[tuple[Store, Manifest]]
    place: np.ndarray
    groups: np.ndarray
    checksums: np.ndarray
    sources: np.ndarray
    soft_labels: np.ndarray

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: np.ndarray) -> Rows:
        """Return some of the rows, by mask or number."""
        names = ("place", "groups", "checksums", "sources", "soft_labels")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def sample(self, limit: int, seed: int) -> Rows:
        """Return at most `limit` of the rows, drawn at random, in the order of the shards."""
        if len(self) <= limit:
            return self
        return self.take(
            np.sort(permutation(seed, Stream.AUDIT, len(self), step=Draw.IMAGES)[:limit])
        )

    def read(self) -> np.ndarray:
        """Read the images, a shard at a time: uint8 [N, C, H, W]."""
        images = np.empty((len(self), *self.sets[0][1].image_shape), np.uint8)
        for number, (store, manifest) in enumerate(self.sets):
            for index, shard in enumerate(manifest.shards):
                mine = np.flatnonzero((self.place[:, :2] == (number, index)).all(axis=1))
                if len(mine):
                    images[mine] = read_rows(store, manifest, shard, self.place[mine, 2])
        return images


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AuditInput:
    """All that an audit of a set compares.

    Attributes:
        synthetic, training, members, held_out: rows and what they hold.
        learned_from: what is known of the training images.
        counts: how many of each.
    """

    synthetic: Rows
    synthetic_images: np.ndarray
    training: Rows
    training_sample: RealSample
    members: Rows
    member_sample: RealSample
    held_out: Rows
    held_out_sample: RealSample
    learned_from: LearnedFrom
    counts: AuditedImages


def collect(target: Store, real: Sequence[Store], config: AuditConfig) -> AuditInput:
    """Choose and read the images.

    Training images are those of `real` that the set's record (``seen.parquet``) names, held-out
    ones those of which it names neither the image nor the patient. Without a record the train
    splits are presumed to be what was learned from, and the val splits to be held out.

    Args:
        target: the synthetic set.
        real: sets of real images, of one shape with the synthetic ones.

    Raises:
        DataError: if a set is missing or damaged, or of another shape.
    """
    manifest = Manifest.load(target)
    sets = [(store, Manifest.load(store)) for store in real]
    for store, other in sets:
        if other.image_shape != manifest.image_shape:
            raise DataError(
                f"{target.url}: images of {_shape(manifest)}, {store.url} of {_shape(other)}; "
                "prepare the real images in the resolution of the set to audit it"
            )
    whole = list_rows([(target, manifest)], None)
    synthetic = whole.sample(config.images, config.seed)
    rows, splits = list_rows(sets, _SPLITS), _splits(sets)
    record = _Record.read(target)
    if record.is_there:
        learned = _among(rows.checksums, record.checksums)
        unseen = ~learned & ~_among(rows.groups, record.groups)
    else:
        learned, unseen = splits == "train", splits == "val"
        unseen &= ~_among(rows.groups, set(rows.groups[learned]))
    training = rows.take(learned).sample(config.real_images, config.seed)
    members = training.sample(config.images, config.seed)
    held_out = rows.take(unseen).sample(config.images, config.seed)
    names = np.unique(rows.groups.astype(str))
    samples = [
        RealSample(
            images=part.read(),
            patients=np.searchsorted(names, part.groups.astype(str)).astype(np.int64),
        )
        for part in (training, members, held_out)
    ]
    return AuditInput(
        synthetic=synthetic,
        synthetic_images=synthetic.read(),
        training=training,
        training_sample=samples[0],
        members=members,
        member_sample=samples[1],
        held_out=held_out,
        held_out_sample=samples[2],
        learned_from=LearnedFrom(
            is_on_record=record.is_there,
            elsewhere=len(record.checksums - {*rows.checksums[learned]} - drawn_images()),
            unknown=record.unknown if record.is_there else (),
        ),
        counts=AuditedImages(
            synthetic=len(synthetic),
            synthetic_total=len(whole),
            training=len(training),
            training_patients=samples[0].patient_count,
            members=len(members),
            member_patients=samples[1].patient_count,
            held_out=len(held_out),
            held_out_patients=samples[2].patient_count,
        ),
    )


def resaved_copies(target: Store, found: AuditInput) -> tuple[np.ndarray, np.ndarray]:
    """Find images that are training images resaved, by thumbnails of all that are on record.

    Returns:
        Which synthetic images are, bool [M], and which held-out ones, bool [K].
    """
    synthetic = thumbnails(found.synthetic_images)
    held_out = thumbnails(found.held_out_sample.images)
    is_copy, is_alike = np.zeros(len(synthetic), bool), np.zeros(len(held_out), bool)
    for learned in _learned_thumbnails(target, found):
        is_copy |= find_copies(synthetic, learned)
        is_alike |= find_copies(held_out, learned)
    return is_copy, is_alike


def list_rows(sets: Sequence[tuple[Store, Manifest]], splits: Sequence[str] | None) -> Rows:
    """List the rows of splits, None for all, without their images."""
    width = max((len(manifest.classes) for _, manifest in sets), default=0)
    place = [np.empty((0, 3), np.int64)]
    columns: list[list[np.ndarray]] = [[np.empty(0, object)] for _ in range(3)]
    labels = [np.empty((0, width), np.float32)]
    for number, (store, manifest) in enumerate(sets):
        for index, shard in enumerate(manifest.shards):
            if splits is not None and shard.split not in splits:
                continue
            table = store.read_columns(shard.name, _COLUMNS)
            row = np.arange(len(table))
            place.append(np.stack([np.full_like(row, number), np.full_like(row, index), row], 1))
            for parts, name in zip(columns, _COLUMNS[:3], strict=True):
                parts.append(table[name].to_numpy())
            theta = weights_of(table["soft_label"], len(manifest.classes))
            labels.append(np.pad(theta, ((0, 0), (0, width - theta.shape[1]))))
    groups, checksums, sources = (np.concatenate(parts) for parts in columns)
    return Rows(
        sets=sets,
        place=np.concatenate(place),
        groups=groups,
        checksums=checksums,
        sources=sources,
        soft_labels=np.concatenate(labels),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Record:
    """Images and groups that a set's record names."""

    is_there: bool
    checksums: frozenset[str]
    groups: frozenset[str]
    unknown: tuple[str, ...]

    @classmethod
    def read(cls, target: Store) -> _Record:
        provenance = _provenance(target)
        checksums: set[str] = set()
        groups: set[str] = set()
        for table in provenance:
            checksums.update(table["checksum"].to_pylist())
            groups.update(table["group"].unique().to_pylist())
        return cls(
            is_there=bool(checksums),
            checksums=frozenset(checksums),
            groups=frozenset(groups),
            unknown=provenance.unknown,
        )


def _provenance(target: Store) -> Provenance:
    return Provenance(target, "the generator")


def _learned_thumbnails(target: Store, found: AuditInput) -> Iterator[np.ndarray]:
    provenance = _provenance(target)
    yield from provenance.thumbnails()
    if not found.learned_from.is_on_record or provenance.without_thumbnails:
        yield thumbnails(found.training_sample.images)


def _among(names: np.ndarray, known: Collection[str]) -> np.ndarray:
    return np.array([name in known for name in names], bool)


def _splits(sets: Sequence[tuple[Store, Manifest]]) -> np.ndarray:
    """Return the split of each row that :func:`list_rows` lists."""
    found = [
        shard.split
        for _, manifest in sets
        for shard in manifest.shards
        if shard.split in _SPLITS
        for _ in range(shard.rows)
    ]
    return np.array(found, object)


def _shape(manifest: Manifest) -> str:
    return f"{manifest.channels} x {manifest.resolution} x {manifest.resolution} pixels"
