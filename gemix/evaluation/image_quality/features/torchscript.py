"""Feature extractors from TorchScript files.

A TorchScript file holds a program that is run: load only what you would install.
"""

from __future__ import annotations

import hashlib
import io

import torch

from gemix.core.errors import ConfigError
from gemix.evaluation.image_quality.features.base import Extractor, read_model_file


def torchscript_extractor(path: str, resolution: int, device: torch.device) -> Extractor:
    """Open a TorchScript module from uint8 RGB images [n, 3, H, W] to features [n, D].

    The public metric networks have this signature. Where a module's forward has an argument
    `return_features`, as theirs has, it is set.

    Args:
        path: local or ``s3://``.
        resolution: not needed; the module takes the images as they are.

    Raises:
        ConfigError: for a file that is missing or no TorchScript.
    """
    data, name = read_model_file("torchscript", path)
    try:
        module = torch.jit.load(io.BytesIO(data), map_location=device).eval()
        arguments = {argument.name for argument in module.forward.schema.arguments}
    except (RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"metrics.extractor torchscript:{path}: no TorchScript module that can be loaded "
            f"({str(error).splitlines()[0]}); write it with torch.jit.save"
        ) from error
    options = {"return_features": True} if "return_features" in arguments else {}
    return Extractor(
        name=name,
        checksum=hashlib.sha256(data).hexdigest(),
        forward=lambda images: module(images.contiguous(), **options),
        device=device,
    )
