"""Refuse to learn from what is held out, or warn where that is allowed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gemix.config import PipelineConfig
from gemix.data.leakage.overlap import OverlapReport, Split, TrainingSource, check_no_overlap
from gemix.io.storage import Store
from gemix.io.workspace import Workspace


def real_splits(workspace: Workspace, *names: str) -> list[Split]:
    """Return splits of the real images."""
    return [Split(Store(workspace.data), name) for name in names]


def enforce_no_overlap(
    step: str, config: PipelineConfig, pairs: Iterable[tuple[TrainingSource, Split]]
) -> OverlapReport:
    """Refuse overlap of training and held-out data; with ``data.allow_overlap`` log a warning.

    Args:
        step: the name of the step, for the log.

    Raises:
        DataError: if anything is shared and that is not allowed.
    """
    findings = check_no_overlap(pairs, allow=config.data.allow_overlap)
    for warning in findings.warnings:
        logging.getLogger(f"gemix.{step}").warning("%s", warning)
    return findings
