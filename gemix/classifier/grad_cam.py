"""Grad-CAM: which parts of an image speak for a class.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
localization", ICCV 2017, computed by Captum, an optional package (the extra `explain`).
"""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemix.classifier.normalization import Normalization
from gemix.core.errors import DataError

LEAST_CELLS = 4  # a side: the last stage of a small image is a single cell, which points nowhere


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Grad-CAM maps of images.

    Attributes:
        maps: float32 [N, H, W], each 0 to 1 with a largest value of 1, or all 0 where nothing
            speaks for the class.
        layer: name of the network's module whose output they weigh.
        cells: height and width of that output.
    """

    maps: np.ndarray
    layer: str
    cells: tuple[int, int]


def is_installed() -> bool:
    """Return whether Captum can be imported."""
    return importlib.util.find_spec("captum") is not None


def grad_cam(
    network: nn.Module, normalization: Normalization, images: np.ndarray, classes: np.ndarray
) -> Maps:
    """Compute a map of each image, of all at once.

    Maps are of the last stage in timm's ``feature_info`` with at least 4 x 4 cells, enlarged
    bilinearly.

    Args:
        network: a timm model on any device; it is left in evaluation mode.
        normalization: of its training set.
        images: 0 to 255, [N, C, H, W], N at least 1.
        classes: whose logit a map is of, int [N].

    Raises:
        DataError: if no stage is a grid of channels, as in transformers, or gradients cannot be
            taken.
        ModuleNotFoundError: without Captum.
    """
    from captum.attr import LayerGradCam

    network.eval()
    device = next(network.parameters()).device
    batch = normalization(torch.tensor(images, device=device))
    layer = _last_grid(network, batch[:1])
    if layer is None:
        raise DataError(
            f"{type(network).__name__} has no stage of {LEAST_CELLS} x {LEAST_CELLS} cells or more "
            "with channels first: Grad-CAM explains convolutional networks alone"
        )
    target = torch.tensor(classes, device=device, dtype=torch.int64)
    try:
        explainer = LayerGradCam(network, network.get_submodule(layer))
        with torch.enable_grad():
            found = explainer.attribute(batch, target=target, relu_attributions=True)
    except Exception as error:  # timm's networks are many, and so are the ways in which hooks fail
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"no Grad-CAM of {type(network).__name__} ({reason})") from error
    found = found.detach().float()
    maps = F.interpolate(found, batch.shape[-2:], mode="bilinear")[:, 0]
    largest = maps.amax(dim=(1, 2), keepdim=True)
    maps = torch.where(largest > 0, maps / largest.clamp_min(torch.finfo(maps.dtype).tiny), 0)
    return Maps(maps=maps.cpu().numpy(), layer=layer, cells=tuple(found.shape[-2:]))


def _last_grid(network: nn.Module, image: Tensor) -> str | None:
    """Return the last stage whose output is [N, C, h, w] of enough cells; None if there is none.

    Args:
        image: a normalized one, [1, C, H, W].
    """
    info = getattr(network, "feature_info", None) or []
    stages = {one["module"]: one["num_chs"] for one in getattr(info, "info", info)}
    shapes: dict[str, tuple[int, ...]] = {}

    def keep_shape(name: str):
        def hook(_module: nn.Module, _inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return hook

    known = dict(network.named_modules())
    hooks = [
        known[name].register_forward_hook(keep_shape(name)) for name in stages if name in known
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    for name, channels in reversed(stages.items()):
        shape = shapes.get(name, ())
        if len(shape) == 4 and shape[1] == channels and min(shape[2:]) >= LEAST_CELLS:
            return name
    return None
