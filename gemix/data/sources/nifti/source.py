"""A folder of NIfTI volumes with one sub-folder a class, cut into axial slices."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, InvalidImageError, Scan, ScanFiltered
from gemix.data.sources.base import Listing
from gemix.data.sources.class_folders import ClassFolders, find_class_folders
from gemix.data.sources.files import unreadable
from gemix.data.sources.nifti.header import FLAG_BYTES, HEADER_BYTES, parse_header
from gemix.data.sources.patient_pattern import patients_of
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.data.sources.silence import quiet
from gemix.io.storage import Store

_CHUNK = 32  # volumes whose headers are read at a time
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_KEY = re.compile(r"(.+)#slice-(\d{4,})", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Survey:
    """What listing needs of a header."""

    slices: int
    has_orientation: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Volume:
    """Stored values [W, H, slices] towards left, posterior, superior; HU after slope, intercept."""

    values: np.ndarray
    slope: float
    intercept: float


class NiftiSource:
    """Volumes ``<path>/<class>/**/*.nii`` or ``.nii.gz``, NIfTI-1 or -2.

    Nothing of a header but geometry and scaling is used. The paths of the files are written to
    shards and reports: if they may name patients, rename the files before.

    ScanRefs are axial slices from inferior to superior, seen as radiologists do: anterior on top,
    the patient's right on the left. Oblique volumes are cut along the nearest axis. Local paths
    and ``s3://`` URLs.

    Args:
        path: the folder with the class folders.
        patient_pattern: what names the patient in a volume's path, as
            :func:`gemix.data.sources.patient_pattern.patients_of` reads it; where it is empty, a
            volume is a patient.
    """

    def __init__(self, path: str, patient_pattern: str = ""):
        self.store = Store(path)
        self.patient_pattern = patient_pattern
        # slices are asked for in order: one volume is held, so that it is decoded once
        self._last: tuple[str, _Volume | InvalidImageError] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """Reads headers alone; see :class:`gemix.data.sources.base.Source`.

        A volume whose header is of no use is one item, which `load` refuses with the reason.
        """
        folders = find_class_folders(
            self.store, lambda name: bool(_ENDING.search(name)), "volume", ".nii or .nii.gz"
        )
        names = [name for names in folders.by_class.values() for name in names]
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        read = functools.partial(_survey, self.store)
        surveyed = itertools.chain.from_iterable(map_fn(read, chunks, "headers"))
        found = dict(zip(names, surveyed, strict=True))
        self._check(folders, found)
        groups = {name: _ENDING.sub("", name) for name in names}
        if self.patient_pattern:
            groups = patients_of(names, self.patient_pattern)
        items = ScanRefs.of(
            ScanRef(
                key=key,
                class_index=index,
                group=groups[name],
                split=folders.splits.get(name),
                location=name,
                stamp=folders.files.stamps[name],
            )
            for index, inside in enumerate(folders.by_class.values())
            for name in inside
            for key in _keys(name, found[name])
        )
        return Listing(
            classes=tuple(folders.by_class),
            items=items,
            listed=len(items) + len(folders.unusable),
            notes=(*self._notes(len(items), found, groups), *folders.notes("volume")),
            unusable=tuple(folders.unusable),
            groups_are="patients" if self.patient_pattern else "volumes",
        )

    def _check(self, folders: ClassFolders, found: Mapping[str, _Survey | str]) -> None:
        """Raises DataError for a class without a usable volume."""
        for folder, names in folders.by_class.items():
            reasons = [f"{name}: {found[name]}" for name in names if isinstance(found[name], str)]
            if len(reasons) == len(names):
                raise DataError(
                    f"{self.store.url}/{folder}: none of its {len(names)} volumes can be used "
                    f"({reasons[0]}); mend them or remove the folder"
                )

    def _notes(
        self, images: int, found: Mapping[str, _Survey | str], groups: Mapping[str, str]
    ) -> Iterator[str]:
        volumes = [one for one in found.values() if not isinstance(one, str)]
        unusable = len(found) - len(volumes)
        whose = "a volume counts as a patient"
        if self.patient_pattern:
            whose = f"{len(set(groups.values()))} patients, named by data.patient_pattern"
        yield f"found {images - unusable} slices of {len(volumes)} volumes; {whose}"
        if unusable:
            yield f"{unusable} volumes cannot be cut; each counts as one image"
        if guessed := sum(not volume.has_orientation for volume in volumes):
            yield (
                f"{guessed} volumes do not say how the patient lay (qform and sform code 0); "
                "taken as stored from right to left, posterior to anterior, inferior to superior"
            )

    def load(self, item: ScanRef) -> Scan:
        """Hounsfield units from -1024 to 3071; see :class:`gemix.data.sources.base.Source`.

        Raises:
            ScanFiltered: for a blank slice, such as resampling pads a volume with.
        """
        match = _KEY.fullmatch(item.key)
        if not match:
            parse_header(
                _read(self.store, item.key, HEADER_BYTES)
            )  # raises the reason that listing met
            raise InvalidImageError(
                "its header can be read now, but could not when listed; run again"
            )
        volume, number = self._volume(match[1]), int(match[2])
        if number >= volume.values.shape[2]:
            raise InvalidImageError(
                f"the volume has only {volume.values.shape[2]} slices now; run again"
            )
        stored = volume.values[:, :, number].T
        pixels = stored.astype(np.float64)
        pixels = pixels * volume.slope + volume.intercept
        broken = int(np.count_nonzero(~np.isfinite(pixels)))
        if broken:
            raise InvalidImageError(f"{broken} of {pixels.size} pixels are NaN or infinite")
        if stored.min() == stored.max():
            raise ScanFiltered("blank")
        pixels = pixels.clip(LOWEST_HU, HIGHEST_HU).astype(np.float32)
        return Scan(pixels=pixels, is_hounsfield=True, box=item.box)

    def _volume(self, name: str) -> _Volume:
        """The decoded volume; a bad one is remembered too, not read again for each slice."""
        if self._last is None or self._last[0] != name:
            self._last = None  # frees the volume before the next one is decoded
            try:
                self._last = name, _read_volume(self.store, name)
            except InvalidImageError as reason:
                self._last = name, reason
        volume = self._last[1]
        if isinstance(volume, InvalidImageError):
            raise InvalidImageError(str(volume))
        return volume


def _survey(store: Store, names: Sequence[str]) -> list[_Survey | str]:
    """What the header of each volume says, or why the volume is of no use."""
    found: list[_Survey | str] = []
    for name in names:
        try:
            header = parse_header(_read(store, name, HEADER_BYTES))
        except InvalidImageError as reason:
            found.append(str(reason))
        else:
            found.append(_Survey(slices=header.slices, has_orientation=header.has_orientation))
    return found


def _keys(name: str, survey: _Survey | str) -> Iterator[str]:
    """The keys of a volume's slices, or one for a volume that is of no use."""
    if isinstance(survey, str):
        yield name
    else:
        yield from (f"{name}#slice-{number:04d}" for number in range(survey.slices))


def _read(store: Store, name: str, count: int) -> bytes:
    """The first `count` bytes at most, decompressed; no more than that is decompressed."""
    compression = "gzip" if name.lower().endswith(".gz") else None
    try:
        return store.read_head(name, count, compression)
    except DataError as error:
        raise unreadable(store, name, error) from None


def _read_volume(store: Store, name: str) -> _Volume:
    header = parse_header(_read(store, name, HEADER_BYTES))
    data = _read(store, name, header.file_bytes)
    if len(data) < header.file_bytes:
        raise InvalidImageError(
            f"truncated: {len(data)} of {header.file_bytes} bytes are there; copy it again"
        )
    # extensions are free-form and may name the patient: marked as absent, they are not parsed
    flag = header.kind.header_class.sizeof_hdr
    data = data[:flag] + bytes(FLAG_BYTES) + data[flag + FLAG_BYTES :]
    with quiet("nibabel.global"):
        proxy = header.kind.from_bytes(data).dataobj
        values = proxy.get_unscaled().reshape(header.shape, order="F")
    if values.min() == values.max():
        raise InvalidImageError("all of its voxels have one value; copy it again")
    return _Volume(
        values=apply_orientation(values, header.to_lps), slope=proxy.slope, intercept=proxy.inter
    )
