"""Raw scans to a finished shard set; read :mod:`gemix.data.prepare.pipeline` first."""

from gemix.data.prepare.pipeline import QUARANTINE, check_places, find, prepare, prepare_here

__all__ = ["QUARANTINE", "check_places", "find", "prepare", "prepare_here"]
