"""Feature extractors out of a TorchScript or an ONNX file.

Both hold a program that is run: take them only from where you would take software.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gemix.core.errors import ConfigError, DataError
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.io.storage import Store


def torchscript_extractor(path: str, device: torch.device) -> Extractor:
    """A TorchScript module from uint8 RGB images [n, 3, H, W] to features [n, D].

    That is what the public metric networks take; where a module's forward has an argument
    `return_features`, as theirs has, it is set.

    Args:
        path: local or ``s3://``.

    Raises:
        ConfigError: for a file that is missing or no TorchScript.
    """
    data = _read("torchscript", path)
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
        name=f"torchscript:{_file_name(path)}",
        checksum=hashlib.sha256(data).hexdigest(),
        forward=lambda images: module(images.contiguous(), **options),
        device=device,
    )


def onnx_extractor(path: str, device: torch.device) -> Extractor:
    """An ONNX model from RGB images [n, 3, H, W], uint8 or float32 of 0 to 255, to [n, D].

    Images are resized where the model's height and width are fixed, and passed one by one where
    its batch is. Further outputs than the first are ignored.

    Args:
        path: local or ``s3://``.

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
    data = _read("onnx", path)
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
        name=f"onnx:{_file_name(path)}",
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
    """The CPU, after CUDA where that is there and wanted."""
    wanted = ["CPUExecutionProvider"]
    if device.type == "cuda":
        wanted.insert(0, "CUDAExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


def _read(kind: str, path: str) -> bytes:
    try:
        store, name = Store.of_file(path)
        return store.read_bytes(name)
    except DataError as error:
        raise ConfigError(f"metrics.extractor {kind}: {error}; mend the path") from error


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
