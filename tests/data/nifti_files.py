"""NIfTI volumes whose voxels all differ, made for the occasion."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from gemix.data.sources.nifti.source import NiftiSource
from gemix.data.sources.scan_refs import ScanRef


def volume(slices: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Values [slices, height, width] that all differ, as whole HU: up is anterior."""
    values = np.arange(slices * height * width, dtype=np.int16) + seed - 1000
    return values.reshape(slices, height, width)


def save(
    path: Path,
    slices: np.ndarray,
    axes: str = "LPS",
    dtype: type = np.int16,
    affine: np.ndarray | None = None,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
) -> None:
    """Stores [slices, H, W] (inferior first, anterior up, right on the left) along `axes`."""
    lps = np.ascontiguousarray(slices.transpose(2, 1, 0)).astype(dtype)
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes))
    stored = nib.orientations.apply_orientation(lps, turn)
    placed = np.diag([-1.0, -1, 1, 1]) @ inv_ornt_aff(turn, lps.shape)
    image = kind(stored, placed if affine is None else affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)


def patch(path: Path, kind: type[nib.Nifti1Image] = nib.Nifti1Image, **fields) -> None:
    """Changes header fields of a file as it lies there, unchecked."""
    data, size = path.read_bytes(), kind.header_class.sizeof_hdr
    header = kind.header_class(data[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[size:])


def write_archive(root: Path) -> Path:
    """Two classes, one volume of three slices in one, two in the other."""
    save(root / "a" / "p1.nii.gz", volume())
    save(root / "b" / "p2.nii", volume(seed=1))
    save(root / "b" / "deep" / "p10.NII.GZ", volume(seed=2))
    return root


def slices_of(source: NiftiSource, name: str) -> list[ScanRef]:
    """The items of one volume."""
    return [item for item in source.list().items if item.key.startswith(f"{name}#")]
