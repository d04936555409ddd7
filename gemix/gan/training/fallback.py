"""Handle divergence: resume from the last good state with a fallback, or stop.

Each divergence adds one fallback: first bfloat16 is replaced by float32, then both learning rates
are halved each time. The number of fallbacks is part of the state, so a resumed training keeps it.
"""

from __future__ import annotations

import torch

from gemix.core.device import compute_dtype
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.state import TrainingState

MAX_FALLBACK_LEVEL = 4


def fall_back(
    good: TrainingState, failed: TrainingState, learning_rates: str, error: DivergedError
) -> TrainingState:
    """Return the last good state with one fallback more than the failed one had.

    Args:
        learning_rates: the method's settings of learning rates, for the message.

    Raises:
        DivergedError: if no fallback is left.
    """
    if failed.fallback_level >= MAX_FALLBACK_LEVEL:
        raise DivergedError(
            f"training diverged {MAX_FALLBACK_LEVEL + 1} times, the last with "
            f"{describe_fallback(failed, learning_rates)}: {error}"
        ) from error
    good.fallback_level = failed.fallback_level + 1
    good.skipped_updates = failed.skipped_updates
    good.phase_failures = torch.zeros_like(failed.phase_failures)
    return good


def apply_fallback(state: TrainingState) -> torch.dtype:
    """Set the learning rates of the fallback level; return the dtype of the convolutions."""
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 ** _halvings(state)
    return (
        torch.float32
        if state.fallback_level
        else compute_dtype(state.precision, state.pl_mean.device)
    )


def describe_fallback(state: TrainingState, learning_rates: str) -> str:
    """Return the fallbacks in words: ``gan.precision=float32 and gan.cgan_lr x 0.25``.

    Args:
        learning_rates: the method's settings of learning rates.
    """
    parts = []
    if state.fallback_level and state.precision != "float32":
        parts.append("gan.precision=float32")
    if halvings := _halvings(state):
        parts.append(f"{learning_rates} x {0.5**halvings:g}")
    return " and ".join(parts) or "no fallback"


def _halvings(state: TrainingState) -> int:
    return max(0, state.fallback_level - (state.precision != "float32"))
