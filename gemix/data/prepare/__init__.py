"""Prepare raw scans as a shard set; read :mod:`gemix.data.prepare.pipeline` first."""

from gemix.data.prepare.pipeline import check_locations, list_scans, prepare, prepare_serial
from gemix.data.prepare.quarantine import QUARANTINE

__all__ = ["QUARANTINE", "check_locations", "list_scans", "prepare", "prepare_serial"]
