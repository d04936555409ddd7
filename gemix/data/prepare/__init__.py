"""Raw scans to a finished shard set; read :mod:`gemix.data.prepare.pipeline` first."""

from gemix.data.prepare.pipeline import check_places, find, prepare, prepare_here
from gemix.data.prepare.quarantine import QUARANTINE

__all__ = ["QUARANTINE", "check_places", "find", "prepare", "prepare_here"]
