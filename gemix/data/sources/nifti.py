"""A folder of NIfTI volumes with one sub-folder a class, cut into axial slices."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from gemix.data.decode import MAX_SIDE, MIN_SIDE
from gemix.data.scan import HIGHEST_HU, LOWEST_HU, BadImage, Scan
from gemix.data.sources.base import Item, Listing
from gemix.data.sources.class_folders import find_class_folders
from gemix.errors import DataError
from gemix.storage import Store

_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_KEY = re.compile(r"(.+)#slice-(\d{4,})", re.DOTALL)
_MOST_BYTES = 2 * 2**30  # of a volume at 4 bytes a voxel; also of what lies before its voxels
_FLAG_BYTES = 4  # after the header: whether extensions follow (NIfTI specification)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
    """What a header says that is needed; `to_lps` turns the stored axes."""

    kind: type[nib.Nifti1Image]
    shape: tuple[int, ...]
    file_bytes: int
    to_lps: np.ndarray
    slices: int
    has_orientation: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Volume:
    """Stored values [W, H, slices] towards left, posterior, superior; HU after slope, intercept."""

    values: np.ndarray
    slope: float
    intercept: float


class NiftiSource:
    """Volumes ``<path>/<class>/**/*.nii`` or ``.nii.gz``, NIfTI-1 or -2; a volume is a patient.

    Items are axial slices from inferior to superior, seen as radiologists do: anterior on top,
    the patient's right on the left. Oblique volumes are cut along the nearest axis. Local paths
    and ``s3://`` URLs.

    Args:
        path: the folder with the class folders.
    """

    def __init__(self, path: str):
        self.store = Store(path)
        # slices are asked for in order: one volume is held, so that it is decoded once
        self._last: tuple[str, _Volume | BadImage] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def list(self) -> Listing:
        """Reads headers alone; see :class:`gemix.data.sources.base.Source`.

        A volume whose header is of no use is one item, which `load` refuses with the reason.
        """
        folders = find_class_folders(
            self.store, lambda name: bool(_ENDING.search(name)), "volume", ".nii or .nii.gz"
        )
        by_class = folders.by_class
        items: list[Item] = []
        unusable: list[str] = []
        guessed = 0
        for index, (folder, names) in enumerate(by_class.items()):
            reasons = []
            for name in names:
                item = Item(key=name, class_index=index, group=_ENDING.sub("", name))
                try:
                    header = _read_header(self.store, name)
                except BadImage as reason:
                    reasons.append(f"{name}: {reason}")
                    items.append(item)
                    continue
                guessed += not header.has_orientation
                items += [
                    dataclasses.replace(item, key=f"{name}#slice-{number:04d}")
                    for number in range(header.slices)
                ]
            if len(reasons) == len(names):
                raise DataError(
                    f"{self.store.url}/{folder}: none of its {len(names)} volumes can be used "
                    f"({reasons[0]}); mend them or remove the folder"
                )
            unusable += reasons
        volumes = sum(map(len, by_class.values())) - len(unusable)
        notes = [
            f"found {len(items) - len(unusable)} slices of {volumes} volumes "
            f" in {len(by_class)} class folders; a volume counts as a patient"
        ]
        if unusable:
            notes.append(f"{len(unusable)} volumes cannot be cut; each counts as one image")
        if guessed:
            notes.append(
                f"{guessed} volumes do not say how the patient lay (qform and sform code 0); "
                "taken as stored from right to left, posterior to anterior, inferior to superior"
            )
        notes += folders.notes("volume")
        return Listing(
            classes=tuple(by_class), items=tuple(items), listed=len(items), notes=tuple(notes)
        )

    def load(self, item: Item) -> Scan:
        """Hounsfield units from -1024 to 3071; see :class:`gemix.data.sources.base.Source`."""
        match = _KEY.fullmatch(item.key)
        if not match:
            _read_header(self.store, item.key)  # raises the reason that listing met
            raise BadImage("its header can be read now, but could not when listed; run again")
        volume, number = self._volume(match[1]), int(match[2])
        if number >= volume.values.shape[2]:
            raise BadImage(f"the volume has only {volume.values.shape[2]} slices now; run again")
        pixels = volume.values[:, :, number].T.astype(np.float64)
        pixels = pixels * volume.slope + volume.intercept
        broken = int(np.count_nonzero(~np.isfinite(pixels)))
        if broken:
            raise BadImage(f"{broken} of {pixels.size} pixels are NaN or infinite")
        pixels = pixels.clip(LOWEST_HU, HIGHEST_HU).astype(np.float32)
        return Scan(pixels=pixels, is_hounsfield=True, box=item.box)

    def _volume(self, name: str) -> _Volume:
        """The decoded volume; a bad one is remembered too, not read again for each slice."""
        if self._last is None or self._last[0] != name:
            self._last = None  # frees the volume before the next one is decoded
            try:
                self._last = name, _read_volume(self.store, name)
            except BadImage as reason:
                self._last = name, reason
        volume = self._last[1]
        if isinstance(volume, BadImage):
            raise BadImage(str(volume))
        return volume


def _read(store: Store, name: str, count: int) -> bytes:
    """The first `count` bytes at most, decompressed; no more than that is decompressed."""
    compression = "gzip" if name.lower().endswith(".gz") else None
    try:
        with store.filesystem.open_input_stream(store.path(name), compression) as stream:
            return stream.read(count)
    except OSError as error:
        raise BadImage(f"cannot be read or is damaged ({error}); copy it again") from None


def _read_header(store: Store, name: str) -> _Header:
    """Raises BadImage for all that the header alone shows to be unusable."""
    start = _read(store, name, nib.Nifti2Header.sizeof_hdr)
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kinds = [k for k in (nib.Nifti1Image, nib.Nifti2Image) if k.header_class.sizeof_hdr in sizes]
    if not kinds:
        raise BadImage(f"no NIfTI header in its first {len(start)} bytes; remove or mend the file")
    kind = kinds[0]
    try:
        header = kind.header_class(start[: kind.header_class.sizeof_hdr])
        header.get_slope_inter()
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        orientation = io_orientation(header.get_best_affine())
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise BadImage(f"damaged NIfTI header ({error}); copy it again") from None
    sides = " x ".join(map(str, shape))
    if dtype.kind not in "iuf":
        raise BadImage(f"data type {header.get_value_label('datatype')}; one number a voxel wanted")
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)) or min(shape) < 1:
        raise BadImage(f"shape {sides or 'empty'}; one volume of three dimensions wanted")
    if 4 * math.prod(shape) > _MOST_BYTES:
        raise BadImage(
            f"{sides} voxels are {4 * math.prod(shape)} bytes; at most {_MOST_BYTES} are decoded"
        )
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr + _FLAG_BYTES <= offset <= _MOST_BYTES:
        raise BadImage(f"voxels at byte {offset:g} of the file: no single-file NIfTI volume")
    if np.isnan(orientation).any():
        raise BadImage("its affine has no inverse, so that no axis is the patient's; mend it")
    to_lps = ornt_transform(orientation, axcodes2ornt("LPS"))
    width, height, slices = (shape[axis] for axis in np.argsort(to_lps[:, 0]))
    if max(width, height) > MAX_SIDE or min(width, height) < MIN_SIDE:
        raise BadImage(
            f"slices of {width} x {height} pixels; sides from {MIN_SIDE} to {MAX_SIDE} are read"
        )
    return _Header(
        kind=kind,
        shape=shape[:3],
        file_bytes=int(offset) + dtype.itemsize * math.prod(shape),
        to_lps=to_lps,
        slices=slices,
        has_orientation=bool(header["qform_code"] > 0 or header["sform_code"] > 0),
    )


def _read_volume(store: Store, name: str) -> _Volume:
    header = _read_header(store, name)
    data = _read(store, name, header.file_bytes)
    if len(data) < header.file_bytes:
        raise BadImage(
            f"truncated: {len(data)} of {header.file_bytes} bytes are there; copy it again"
        )
    # extensions are free-form and may name the patient: marked as absent, they are not parsed
    flag = header.kind.header_class.sizeof_hdr
    data = data[:flag] + bytes(_FLAG_BYTES) + data[flag + _FLAG_BYTES :]
    proxy = header.kind.from_bytes(data).dataobj
    values = proxy.get_unscaled().reshape(header.shape, order="F")
    return _Volume(
        values=apply_orientation(values, header.to_lps), slope=proxy.slope, intercept=proxy.inter
    )
