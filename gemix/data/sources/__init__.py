"""Where scans come from. Each source lists its scans and loads them one at a time."""

from gemix.data.config import DataConfig
from gemix.data.sources.base import Listing, Source
from gemix.data.sources.covidx import CovidxSource
from gemix.data.sources.dicom.source import DicomSource
from gemix.data.sources.folder import FolderSource
from gemix.data.sources.medmnist.source import MedMnistSource
from gemix.data.sources.nifti.source import NiftiSource
from gemix.data.sources.parquet.source import ParquetSource
from gemix.data.sources.scan_refs import ScanRef, ScanRefs

__all__ = ["Listing", "ScanRef", "ScanRefs", "Source", "open_source"]

_OF_A_PATH = {"covidx": CovidxSource, "medmnist": MedMnistSource, "parquet": ParquetSource}
_OF_CLASS_FOLDERS = {"folder": FolderSource, "nifti": NiftiSource}


def open_source(config: DataConfig) -> Source:
    """The source that the settings name; cheap, so any process can open it anew.

    Raises:
        DataError: for a path of an unknown scheme.
    """
    if config.source == "phantom":
        # here, since it loads torch, which takes each process that reads files seconds for nothing
        from gemix.data.sources.phantom import PhantomSource

        return PhantomSource(config)
    if config.source == "dicom":
        return DicomSource(config.path, config.labels)
    if config.source in _OF_CLASS_FOLDERS:
        return _OF_CLASS_FOLDERS[config.source](config.path, config.patient_pattern)
    return _OF_A_PATH[config.source](config.path)
