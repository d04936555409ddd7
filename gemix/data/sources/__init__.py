"""Sources of scans: each lists its scans and loads them one at a time."""

from gemix.data.sources.base import Listing, Source
from gemix.data.sources.registry import open_source
from gemix.data.sources.scan_refs import ScanRef, ScanRefs

__all__ = ["Listing", "ScanRef", "ScanRefs", "Source", "open_source"]
