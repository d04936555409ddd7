"""Where the networks run, and in which precision."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """This process's CUDA device, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What convolutions compute in, for a `precision` setting.

    `auto` is bfloat16 where the hardware multiplies it natively (compute capability 8 and up,
    AVX512-BF16), else float32: emulated bfloat16 is slower and less exact.
    """
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
