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
from gemix.data.preprocessing.hounsfield import NO_AIR, has_air
from gemix.data.preprocessing.spacing import to_square_pixels
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, InvalidImageError, Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.class_folders import ClassFolders, find_class_folders
from gemix.data.sources.compression import gunzip, is_gzip
from gemix.data.sources.files import unreadable
from gemix.data.sources.nifti.header import (
    FLAG_BYTES,
    HEADER_BYTES,
    VolumeHeader,
    parse_header,
)
from gemix.data.sources.patient_pattern import patients_of
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.data.sources.silence_logger import silence_logger
from gemix.io.storage import Store

_CHUNK = 32  # volumes whose headers are read at a time
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_KEY = re.compile(r"(.+)#slice-(\d{4,})", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Summary:
    """Header of a volume, as far as listing needs it."""

    slices: int
    has_orientation: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Volume:
    """A decoded volume.

    Attributes:
        values: stored values [W, H, slices] towards left, posterior, superior.
        slope, intercept: from stored values to Hounsfield units.
        header: as it was parsed.
    """

    values: np.ndarray
    slope: float
    intercept: float
    header: VolumeHeader


class NiftiSource:
    """Volumes ``<path>/<class>/**/*.nii`` or ``.nii.gz``, NIfTI-1 or -2, packed or not.

    Of a header only geometry and scaling are used. Paths are written to shards and reports: if
    they may name patients, rename the files first.

    Items are axial slices from inferior to superior in radiological view: anterior on top, the
    patient's right on the left. Oblique volumes are cut along the nearest axis.

    Args:
        path: a local folder or ``s3://`` URL with a folder for each class.
        patient_pattern: finds the patient in a volume's path, as
            :func:`gemix.data.sources.patient_pattern.patients_of` reads it; empty if each volume
            is a patient.
    """

    def __init__(self, path: str, patient_pattern: str = ""):
        self.store = Store(path)
        self.patient_pattern = patient_pattern
        # slices are asked for in order: the last volume is held, so that it is decoded once
        self._last: tuple[str, _Volume | InvalidImageError] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """List the slices by headers alone; see :class:`gemix.data.sources.base.Source`.

        A volume whose header cannot be used is one item, which `load` refuses with the reason.
        """
        folders = find_class_folders(
            self.store, lambda name: bool(_ENDING.search(name)), "volume", ".nii or .nii.gz"
        )
        names = [name for names in folders.by_class.values() for name in names]
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        read = functools.partial(_summarize, self.store)
        summaries = itertools.chain.from_iterable(map_fn(read, chunks, "headers"))
        found = dict(zip(names, summaries, strict=True))
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
            unusable_of_class=folders.unusable_of_class,
            group_kind="patients" if self.patient_pattern else "volumes",
        )

    def _check(self, folders: ClassFolders, found: Mapping[str, _Summary | str]) -> None:
        """Raise DataError for a class without a usable volume."""
        for folder, names in folders.by_class.items():
            reasons = [f"{name}: {found[name]}" for name in names if isinstance(found[name], str)]
            if len(reasons) == len(names):
                raise DataError(
                    f"{self.store.url}/{folder}: none of its {len(names)} volumes can be used "
                    f"({reasons[0]}); replace them or remove the folder"
                )

    def _notes(
        self, images: int, found: Mapping[str, _Summary | str], groups: Mapping[str, str]
    ) -> Iterator[str]:
        volumes = [one for one in found.values() if not isinstance(one, str)]
        unusable = len(found) - len(volumes)
        whose = "a volume counts as a patient"
        if self.patient_pattern:
            whose = f"{len(set(groups.values()))} patients, named by data.patient_pattern"
        yield f"found {images - unusable} slices of {len(volumes)} volumes; {whose}"
        if unusable:
            yield f"{unusable} volumes cannot be cut; each counts as one file"
        if guessed := sum(not volume.has_orientation for volume in volumes):
            yield (
                f"{guessed} volumes do not say how the patient lay (qform and sform code 0); "
                "taken as stored from right to left, posterior to anterior, inferior to superior"
            )

    def load(self, item: ScanRef) -> Scan:
        """Read a slice as float32 HU from -1024 to 3071.

        See :class:`gemix.data.sources.base.Source`.
        """
        match = _KEY.fullmatch(item.key)
        if not match:
            _read_header(self.store, item.key)  # raises the reason that listing met
            raise InvalidImageError(
                "its header can be read now, but could not when listed; run again"
            )
        volume, number = self._volume(match[1]), int(match[2])
        if number >= volume.values.shape[2]:
            raise InvalidImageError(
                f"the volume has only {volume.values.shape[2]} slices now; run again"
            )
        pixels = volume.values[:, :, number].T.astype(np.float64)
        pixels = pixels * volume.slope + volume.intercept
        broken = int(np.count_nonzero(~np.isfinite(pixels)))
        if broken:
            raise InvalidImageError(f"{broken} of {pixels.size} pixels are NaN or infinite")
        pixels = pixels.clip(LOWEST_HU, HIGHEST_HU).astype(np.float32)
        spacing = volume.header.row_spacing, volume.header.column_spacing
        return Scan(pixels=to_square_pixels(pixels, *spacing), is_hounsfield=True, box=item.box)

    def _volume(self, name: str) -> _Volume:
        """Return the decoded volume; the reason of a bad one is held too, not read again."""
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


def _summarize(store: Store, names: Sequence[str]) -> list[_Summary | str]:
    """Read the header of each volume, or the reason why the volume cannot be used."""
    found: list[_Summary | str] = []
    for name in names:
        try:
            header, _ = _read_header(store, name)
        except InvalidImageError as reason:
            found.append(str(reason))
        else:
            found.append(_Summary(slices=header.slices, has_orientation=header.has_orientation))
    return found


def _keys(name: str, summary: _Summary | str) -> Iterator[str]:
    """Yield the keys of a volume's slices, or one for a volume that cannot be used."""
    if isinstance(summary, str):
        yield name
    else:
        yield from (f"{name}#slice-{number:04d}" for number in range(summary.slices))


def _read_header(store: Store, name: str) -> tuple[VolumeHeader, bool]:
    """Return the header, and whether the file is packed with gzip, whatever its name ends in."""
    start = _read(store, name, HEADER_BYTES)
    if not is_gzip(start):
        return parse_header(start), False
    unpacked = gunzip(start, HEADER_BYTES)
    if len(unpacked) < HEADER_BYTES == len(start):  # behind a long file name, say
        unpacked = _read(store, name, HEADER_BYTES, is_packed=True)
    return parse_header(unpacked), True


def _read(store: Store, name: str, count: int, is_packed: bool = False) -> bytes:
    """Return the first `count` bytes at most, unpacked; no more than that is unpacked."""
    try:
        return store.read_head(name, count, "gzip" if is_packed else None)
    except DataError as error:
        raise unreadable(store, name, error) from None


def _read_volume(store: Store, name: str) -> _Volume:
    header, is_packed = _read_header(store, name)
    data = _read(store, name, header.file_bytes, is_packed)
    if len(data) < header.file_bytes:
        raise InvalidImageError(
            f"truncated: {len(data)} of {header.file_bytes} bytes are there; copy it again"
        )
    # extensions are free-form and may name the patient: marked as absent, they are not parsed
    flag = header.kind.header_class.sizeof_hdr
    data = data[:flag] + bytes(FLAG_BYTES) + data[flag + FLAG_BYTES :]
    with silence_logger("nibabel.global"):
        proxy = header.kind.from_bytes(data).dataobj
        values = proxy.get_unscaled().reshape(header.shape, order="F")
    if values.min() == values.max():
        raise InvalidImageError("all of its voxels have one value; copy it again")
    values = apply_orientation(values, header.to_lps)
    if not has_air(values.T, proxy.slope, proxy.inter):
        raise InvalidImageError(NO_AIR)
    return _Volume(values=values, slope=proxy.slope, intercept=proxy.inter, header=header)
