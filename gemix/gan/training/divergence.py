"""What a training does when its numbers stop being finite: skip, go back, ease, or give up.

A single failure is skipped (:mod:`gemix.gan.training.optimizer_step`) and counted. When steps keep
failing, the
training goes back to its last good checkpoint and one setting is eased: first bfloat16 gives way
to float32, then both learning rates are halved each time. What was eased is part of the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gemix.core.errors import GemixError
from gemix.gan.config import GanConfig
from gemix.gan.training.optimizer_step import OptimizerStep
from gemix.gan.training.state import TrainingState

MAX_FALLBACK_LEVEL = 4


class DivergedError(GemixError):
    """Gradients keep being no finite numbers."""


class DivergenceMonitor:
    """Counts the skipped updates of a training.

    Args:
        updates: those whose skips are counted.
        patience: failing steps in a row that are too many.
        remedy: what calms the method where it diverges, in words.
    """

    def __init__(self, updates: Sequence[OptimizerStep], patience: int, remedy: str):
        self.updates, self.patience, self.remedy = list(updates), patience, remedy

    def check(self, state: TrainingState) -> None:
        """Called after each step.

        Raises:
            DivergedError: after `patience` failing steps in a row.
        """
        skipped = sum(update.take_skipped() for update in self.updates)
        state.skipped_updates += skipped
        state.failing_steps = state.failing_steps + 1 if skipped else 0
        if state.failing_steps >= self.patience:
            raise DivergedError(
                f"the gradients of {state.failing_steps} steps in a row, up to step {state.step}, "
                f"are not finite; go back to a checkpoint with {self.remedy}"
            )


def ease(
    good: TrainingState, failed: TrainingState, config: GanConfig, error: DivergedError
) -> TrainingState:
    """The last good state, with one setting more eased than the failed one had.

    Raises:
        DivergedError: when everything is eased already.
    """
    if failed.fallback_level >= MAX_FALLBACK_LEVEL:
        raise DivergedError(
            f"training diverged {MAX_FALLBACK_LEVEL + 1} times, the last with "
            f"{eased(failed, config)}: {error}"
        ) from error
    good.fallback_level = failed.fallback_level + 1
    good.skipped_updates, good.failing_steps = failed.skipped_updates, 0
    return good


def apply_fallback(state: TrainingState) -> torch.dtype:
    """Sets the learning rates as they are eased; returns what convolutions compute in."""
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 ** _halvings(state)
    return torch.float32 if state.fallback_level else getattr(torch, state.precision)


def eased(state: TrainingState, config: GanConfig) -> str:
    """What is eased, in words: ``gan.precision=float32, learning rates x 0.25``."""
    parts = []
    if state.fallback_level and state.precision != "float32":
        parts.append("gan.precision=float32")
    if halvings := _halvings(state):
        rates = "gan.cgan_lr" if config.method == "cgan" else "gan.g_lr and gan.d_lr"
        parts.append(f"{rates} x {0.5**halvings:g}")
    return " and ".join(parts) or "nothing eased"


def _halvings(state: TrainingState) -> int:
    return max(0, state.fallback_level - (state.precision != "float32"))
