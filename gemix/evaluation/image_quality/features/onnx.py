"""Feature extractors from ONNX files.

An ONNX file holds a program that is run: load only what you would install.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.errors import ConfigError
from gemix.evaluation.image_quality.features.base import Extractor, read_model_file


def onnx_extractor(path: str, resolution: int, device: torch.device) -> Extractor:
    """Open an ONNX model from RGB images [n, 3, H, W], uint8 or float32 of 0 to 255, to [n, D].

    Images are resized where the model's height and width are fixed, and passed one by one where
    its batch is. Further outputs than the first are ignored.

    Args:
        path: local or ``s3://``.
        resolution: not needed; the model says what it takes.

    Raises:
        ConfigError: without onnxruntime, or for a file that is missing or no such model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"metrics.extractor onnx:{path}: onnxruntime is not installed; pip install "
            "'gemix[onnx]', or choose another extractor"
        ) from error
    data, name = read_model_file("onnx", path)
    try:
        session = onnxruntime.InferenceSession(data, providers=_providers(onnxruntime, device))
    except Exception as error:  # its exceptions have no base but this
        raise ConfigError(
            f"metrics.extractor onnx:{path}: onnxruntime cannot load it "
            f"({str(error).splitlines()[0]}); export the model again"
        ) from error
    (first, *others) = session.get_inputs()
    if others or first.type not in ("tensor(float)", "tensor(uint8)") or len(first.shape) != 4:
        raise ConfigError(
            f"metrics.extractor onnx:{path}: takes {[i.name for i in session.get_inputs()]}, the "
            f"first {first.type} {first.shape}; one input of RGB images [n, 3, H, W], float or "
            "uint8, is wanted"
        )
    return Extractor(
        name=name,
        checksum=hashlib.sha256(data).hexdigest(),
        forward=lambda images: _run(session, first, images),
        device=device,
    )


def _run(session: Any, first: Any, images: Tensor) -> Tensor:
    batch, _, *size = first.shape
    pixels = images.float()
    if all(isinstance(side, int) for side in size) and list(images.shape[-2:]) != size:
        pixels = F.interpolate(pixels, tuple(size), mode="bilinear", antialias=True)
    kind = np.uint8 if first.type == "tensor(uint8)" else np.float32
    array = pixels.round().cpu().numpy().astype(kind) if kind is np.uint8 else pixels.cpu().numpy()
    step = batch if isinstance(batch, int) else len(array)
    if len(array) % step:
        step = 1
    rows = [
        session.run(None, {first.name: np.ascontiguousarray(array[i : i + step])})[0]
        for i in range(0, len(array), step)
    ]
    return torch.from_numpy(np.concatenate(rows)).to(images.device)


def _providers(onnxruntime: Any, device: torch.device) -> list[str]:
    """Return the CPU provider, after CUDA where it is installed and the device is a GPU."""
    wanted = ["CPUExecutionProvider"]
    if device.type == "cuda":
        wanted.insert(0, "CUDAExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]
