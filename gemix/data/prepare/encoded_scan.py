"""One file at a time: the image that ``gemix prepare`` makes of it, to classify new scans."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from gemix.core.errors import ConfigError, DataError
from gemix.data.config import DataConfig
from gemix.data.prepare.staging import MASK, make_image
from gemix.data.preprocessing.decode import decode_image
from gemix.data.preprocessing.hounsfield import NO_AIR
from gemix.data.preprocessing.preprocess import config_of_settings, preprocess_settings
from gemix.data.scan import InvalidImageError, Scan, ScanFiltered
from gemix.data.shards.manifest import Manifest
from gemix.data.sources.compression import gunzip, is_gzip
from gemix.data.sources.dicom.header import check_axial_slice, is_dicom
from gemix.data.sources.dicom.pixels import read_hounsfield, slice_has_air
from gemix.data.sources.files import MAX_IMAGE_BYTES
from gemix.data.sources.registry import SOURCES

MAX_ENCODED_BYTES = MAX_IMAGE_BYTES
"""The largest file that is decoded, in bytes: what ``gemix prepare`` reads of one image."""

_FIRST_BYTES = 1024  # tell a DICOM file
_RULES = {
    "blank": "blank: nearly all of its pixels have one grey",
    MASK: "an image of two grey levels: a segmentation mask, no scan",
    "min_lung_fraction": "less of the body is lung than in any image that the classifier was "
    "trained on (data.min_lung_fraction)",
}


def preparation_settings(manifest: Manifest) -> dict[str, Any] | None:
    """Return the settings that make such images of a file, as plain values.

    None where the manifest does not have them: of sets that ``gemix prepare`` has not written.
    """
    names = preprocess_settings(DataConfig())
    source = SOURCES.get(manifest.origin.get("source", ""))
    if source is None or not names.keys() <= manifest.preprocessing.keys():
        return None
    settings = {name: manifest.preprocessing[name] for name in names}
    return settings | {"is_hounsfield": source.is_hounsfield}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Preparation of single files as the images of a set were prepared.

    Attributes:
        config: windows, resolution R and the least share of lung.
        is_hounsfield: whether the set came from scans in Hounsfield units (HU), which windows
            apply to, or from grey images whose window is not on record.
    """

    config: DataConfig
    is_hounsfield: bool

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build it from what :func:`preparation_settings` returned.

        Raises:
            DataError: for settings that are damaged or of a later version.
        """
        try:
            is_hounsfield = settings["is_hounsfield"]
            if not isinstance(is_hounsfield, bool):
                raise TypeError(f"is_hounsfield {is_hounsfield!r}")
            return cls(config=config_of_settings(settings), is_hounsfield=is_hounsfield)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"preprocessing {dict(settings)}: {type(error).__name__}: {error}; update gemix, "
                "or train the classifier again"
            ) from error

    @property
    def accepts(self) -> str:
        """Description of the accepted files, for messages and documents."""
        windows = ", ".join(f"{one[0]:g}/{one[1]:g}" for one in self.config.levels_and_widths)
        if not self.is_hounsfield:
            return "8-bit grey PNG, JPEG, BMP or TIFF images in the window of the training images"
        if len(self.config.windows) > 1:
            return f"axial CT slices in DICOM files (windows {windows} HU are applied)"
        return (
            f"axial CT slices in DICOM files (window {windows} HU is applied), or 8-bit grey PNG, "
            "JPEG, BMP or TIFF images in that window"
        )

    def image(self, data: bytes) -> np.ndarray:
        """Return the image that ``gemix prepare`` makes of a file, told by its first bytes.

        Args:
            data: a DICOM file, packed with gzip or not, or a PNG, JPEG, BMP or TIFF file.

        Returns:
            uint8 [C, R, R].

        Raises:
            InvalidImageError: for a file that is too large, damaged, hostile or not of the kind
                that the set came from. The reason quotes no header.
        """
        if len(data) > MAX_ENCODED_BYTES:
            raise InvalidImageError(
                f"{len(data)} bytes; files of up to {MAX_ENCODED_BYTES} bytes are read"
            )
        try:
            return make_image(self._decode(data), self.config)
        except ScanFiltered as rule:
            raise InvalidImageError(_RULES[str(rule)]) from None

    def _decode(self, data: bytes) -> Scan:
        first = gunzip(data, _FIRST_BYTES) if is_gzip(data) else data
        if not is_dicom(first):
            if len(self.config.windows) > 1:
                raise InvalidImageError(f"not a DICOM file; the classifier takes {self.accepts}")
            return Scan(pixels=decode_image(data), is_hounsfield=False)
        if not self.is_hounsfield:
            raise InvalidImageError(
                "a DICOM file, and the window of the training images is not on record: the "
                f"classifier takes {self.accepts}"
            )
        check_axial_slice(data)
        has_air = slice_has_air(data)  # prepare asks the whole series
        if has_air is not None and not has_air:
            raise InvalidImageError(NO_AIR)
        return Scan(pixels=read_hounsfield(data), is_hounsfield=True)
