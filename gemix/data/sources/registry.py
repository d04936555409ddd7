"""The registry of data sources: a new source is one module and one entry of `SOURCES`.

Importing this module loads no source, so that settings can name them cheaply.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from gemix.data.sources.base import Source

if TYPE_CHECKING:
    from gemix.data.config import DataConfig


@dataclasses.dataclass(frozen=True)
class SourceEntry:
    """One source.

    Attributes:
        target: its class, as ``module:name``; see :class:`gemix.data.sources.base.Source`.
        title: name in the dataset card and the report.
        settings: names of the fields of :class:`gemix.data.config.DataConfig` that the class takes
            as keyword arguments; ``path`` and ``labels`` are then required.
        is_hounsfield: whether scans are in Hounsfield units, which windows apply to, or grey.
    """

    target: str
    title: str
    settings: tuple[str, ...] = ("path",)
    is_hounsfield: bool = False


_PACKAGE = "gemix.data.sources"
SOURCES = {
    "folder": SourceEntry(
        f"{_PACKAGE}.folder:FolderSource", "class folders", ("path", "patient_pattern")
    ),
    "covidx": SourceEntry(f"{_PACKAGE}.covidx:CovidxSource", "COVIDx CT"),
    "dicom": SourceEntry(
        f"{_PACKAGE}.dicom.source:DicomSource",
        "DICOM series",
        ("path", "labels"),
        is_hounsfield=True,
    ),
    "nifti": SourceEntry(
        f"{_PACKAGE}.nifti.source:NiftiSource",
        "NIfTI volumes",
        ("path", "patient_pattern"),
        is_hounsfield=True,
    ),
    "medmnist": SourceEntry(f"{_PACKAGE}.medmnist.source:MedMnistSource", "a MedMNIST-style file"),
    "parquet": SourceEntry(f"{_PACKAGE}.parquet.source:ParquetSource", "Parquet files"),
    "phantom": SourceEntry(
        f"{_PACKAGE}.phantom:PhantomSource",
        "the digital chest phantom",
        ("phantom", "resolution"),
        is_hounsfield=True,
    ),
}
"""All sources, by the name that ``data.source`` gives them."""


def open_source(config: DataConfig) -> Source:
    """Open the source that the settings name; cheap, so that any process can open it anew.

    Raises:
        DataError: for a path of an unknown scheme.
    """
    entry = SOURCES[config.source]
    module, _, name = entry.target.partition(":")
    source = getattr(importlib.import_module(module), name)
    return source(**{setting: getattr(config, setting) for setting in entry.settings})
