"""What every job that learns or tests does about overlap: refuse, or go on and say so."""

from __future__ import annotations

from collections.abc import Iterable

from gemix.config import PipelineConfig
from gemix.data.leakage.overlap import OverlapReport, Split, TrainingSource, check_no_overlap
from gemix.io.storage import Store
from gemix.io.workspace import Layout


def real_splits(layout: Layout, *names: str) -> list[Split]:
    """Splits of the real images."""
    return [Split(Store(layout.data), name) for name in names]


def enforce_no_overlap(
    job: str, config: PipelineConfig, pairs: Iterable[tuple[TrainingSource, Split]]
) -> OverlapReport:
    """Refuses overlap, or with ``data.allow_overlap`` prints a warning.

    Raises:
        DataError: if anything is shared and that is not allowed.
    """
    findings = check_no_overlap(pairs, allow=config.data.allow_overlap)
    for warning in findings.warnings:
        print(f"{job}: warning: {warning}", flush=True)
    return findings
