"""Parse and check the header of a NIfTI file."""

from __future__ import annotations

import dataclasses
import math

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from gemix.data.preprocessing.decode import MAX_SIDE, MIN_SIDE
from gemix.data.scan import InvalidImageError
from gemix.data.sources.silence_logger import silence_logger

HEADER_BYTES = nib.Nifti2Header.sizeof_hdr  # the longer of NIfTI-1 and NIfTI-2
FLAG_BYTES = 4  # after the header: whether extensions follow (NIfTI specification)

_MAX_BYTES = 2 * 2**30  # of a volume at 4 bytes a voxel, and of what lies before its voxels


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """Geometry and layout of a volume.

    Attributes:
        kind: NIfTI-1 or NIfTI-2.
        shape: sides along the stored axes, in voxels.
        file_bytes: from the start of the file to the end of its voxels, unpacked.
        to_lps: nibabel's orientation from the stored axes to left, posterior, superior.
        slices: voxels along the patient's axis.
        row_spacing, column_spacing: mm between the rows and columns of an axial slice.
        has_orientation: whether the file says how the patient lay.
    """

    kind: type[nib.Nifti1Image]
    shape: tuple[int, ...]
    file_bytes: int
    to_lps: np.ndarray
    slices: int
    row_spacing: float
    column_spacing: float
    has_orientation: bool


def parse_header(start: bytes) -> VolumeHeader:
    """Parse the first `HEADER_BYTES` of a file, unpacked.

    Raises:
        InvalidImageError: for a volume that the header alone shows to be unusable.
    """
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kinds = [k for k in (nib.Nifti1Image, nib.Nifti2Image) if k.header_class.sizeof_hdr in sizes]
    if not kinds:
        raise InvalidImageError(
            f"no NIfTI header in its first {len(start)} bytes; remove the file or copy it again"
        )
    kind = kinds[0]
    try:
        with silence_logger("nibabel.global"):
            header = kind.header_class(start[: kind.header_class.sizeof_hdr])
            header.get_slope_inter()
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            affine = header.get_best_affine()
            orientation, spacing = io_orientation(affine), voxel_sizes(affine)
    except Exception as error:  # nibabel raises nearly anything on a damaged header
        raise InvalidImageError(f"damaged NIfTI header ({error}); copy it again") from None
    if np.isinf(header["scl_slope"]):  # NaN, which nibabel writes, stands for none
        raise InvalidImageError(
            "scl_slope is infinite, so its Hounsfield units are unknown; correct the header"
        )
    sides = " x ".join(map(str, shape))
    if dtype.kind not in "iuf":
        raise InvalidImageError(
            f"data type {header.get_value_label('datatype')}; save one real number a voxel"
        )
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)) or min(shape) < 1:
        raise InvalidImageError(
            f"shape {sides or 'empty'}; one volume of three dimensions a file is read"
        )
    if 4 * math.prod(shape) > _MAX_BYTES:
        raise InvalidImageError(
            f"{sides} voxels are {4 * math.prod(shape)} bytes; at most {_MAX_BYTES} are decoded"
        )
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr + FLAG_BYTES <= offset <= _MAX_BYTES:
        raise InvalidImageError(
            f"voxels at byte {offset:g} of the file: not a single-file NIfTI volume (.nii)"
        )
    if np.isnan(orientation).any():
        raise InvalidImageError(
            "its affine has no inverse, so its orientation is unknown; correct the header"
        )
    to_lps = ornt_transform(orientation, axcodes2ornt("LPS"))
    left, posterior, superior = np.argsort(to_lps[:, 0])
    width, height, slices = shape[left], shape[posterior], shape[superior]
    if max(width, height) > MAX_SIDE or min(width, height) < MIN_SIDE:
        raise InvalidImageError(
            f"slices of {width} x {height} pixels; sides from {MIN_SIDE} to {MAX_SIDE} are read"
        )
    return VolumeHeader(
        kind=kind,
        shape=shape[:3],
        file_bytes=int(offset) + dtype.itemsize * math.prod(shape),
        to_lps=to_lps,
        slices=slices,
        row_spacing=float(spacing[posterior]),
        column_spacing=float(spacing[left]),
        has_orientation=bool(header["qform_code"] > 0 or header["sform_code"] > 0),
    )
