"""Samplers of soft labels: the class mixture that a synthetic image is asked for."""

from gemix.labels.config import LabelConfig
from gemix.labels.registry import SAMPLERS
from gemix.labels.sampling import (
    check_class_weights,
    check_labels,
    draw_labels,
    sample_labels,
)

__all__ = [
    "SAMPLERS",
    "LabelConfig",
    "check_class_weights",
    "check_labels",
    "draw_labels",
    "sample_labels",
]
