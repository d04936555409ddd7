"""The feature extractors by the prefix of ``metrics.extractor``: one line each.

Entries are references that are resolved on first use: the networks take seconds to import, and
every command reads these names. A classifier of gemix as an extractor lives in the layer above,
since parts of the library do not import each other.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from gemix.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from gemix.evaluation.image_quality.features.base import Extractor

_PACKAGE = "gemix.evaluation.image_quality.features"

# each is a function of (what follows the prefix, resolution of the images, device)
EXTRACTORS: dict[str, str] = {
    "timm": f"{_PACKAGE}.timm:pretrained_extractor",
    "timm-random": f"{_PACKAGE}.timm:random_extractor",
    "torchscript": f"{_PACKAGE}.torchscript:torchscript_extractor",
    "onnx": f"{_PACKAGE}.onnx:onnx_extractor",
    "bundle": "gemix.steps.gan_training.bundle_extractor:bundle_extractor",
}


def open_extractor(spec: str, resolution: int, device: torch.device) -> Extractor:
    """Open the feature extractor of a ``<kind>:<what>``.

    Args:
        spec: as ``metrics.extractor`` has it.
        resolution: height and width of the images to extract from.
        device: where it runs.

    Raises:
        ConfigError: if it cannot be opened, with the remedy.
    """
    kind, _, what = spec.partition(":")
    if kind not in EXTRACTORS:
        known = ", ".join(f"{name}:<what>" for name in EXTRACTORS)
        raise ConfigError(f"metrics.extractor {spec}: unknown kind {kind!r}; choose one of {known}")
    return pkgutil.resolve_name(EXTRACTORS[kind])(what, resolution, device)
