"""Raw scans to a finished shard set; :mod:`gemix.data.prepare.whole` reads as the whole of it."""

from gemix.data.prepare.whole import QUARANTINE, find, prepare, prepare_here

__all__ = ["QUARANTINE", "find", "prepare", "prepare_here"]
