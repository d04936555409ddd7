"""Raw scans to a finished shard set; :mod:`gemix.data.prepare.whole` reads as the whole of it."""

from gemix.data.prepare.whole import QUARANTINE, check_places, find, prepare, prepare_here

__all__ = ["QUARANTINE", "check_places", "find", "prepare", "prepare_here"]
