"""What a training does about gradients that are not finite: skip, fall back, or stop.

A single failure is skipped (:mod:`gemix.gan.training.optimizer_step`) and counted. When a phase
keeps failing, the training returns to its last good checkpoint with one fallback more: first
bfloat16 is replaced by float32, then both learning rates are halved each time. The fallback level
is part of the state, so a resumed training keeps it.
"""

from __future__ import annotations

import torch

from gemix.core.errors import GemixError
from gemix.gan.config import GanConfig
from gemix.gan.training.state import TrainingState

MAX_FALLBACK_LEVEL = 4


class DivergedError(GemixError):
    """Gradients are not finite, step after step."""


class DivergenceMonitor:
    """Count the skipped optimizer steps of a training, phase by phase.

    A phase that runs once in 16 steps is counted in its own runs: it fails in a row where it fails
    each time that it runs, whatever other phases do in between.

    Args:
        state: where the counts are kept.
        patience: number of consecutive failures of one phase that are too many.
        hint: settings that stabilize the method, in words.
    """

    def __init__(self, state: TrainingState, patience: int, hint: str):
        self.state, self.patience, self.hint = state, patience, hint

    def record(self, phase: str, applied: bool) -> None:
        """Count the result of a phase's optimizer step."""
        failures = self.state.consecutive_failures
        if applied:
            failures.pop(phase, None)
        else:
            failures[phase] = failures.get(phase, 0) + 1
            self.state.skipped_updates += 1

    def check(self) -> None:
        """Raise if a phase fails too often; called after each step.

        Raises:
            DivergedError: after `patience` consecutive failures of one phase.
        """
        for phase, count in self.state.consecutive_failures.items():
            if count >= self.patience:
                raise DivergedError(
                    f"the gradients of the {phase} phase are not finite in {count} steps in a row "
                    f"that ran it, up to step {self.state.step}; resume from the newest checkpoint "
                    f"with {self.hint}"
                )


def fall_back(
    good: TrainingState, failed: TrainingState, config: GanConfig, error: DivergedError
) -> TrainingState:
    """Return the last good state with one fallback more than the failed one had.

    Raises:
        DivergedError: if no fallback is left.
    """
    if failed.fallback_level >= MAX_FALLBACK_LEVEL:
        raise DivergedError(
            f"training diverged {MAX_FALLBACK_LEVEL + 1} times, the last with "
            f"{describe_fallback(failed, config)}: {error}"
        ) from error
    good.fallback_level = failed.fallback_level + 1
    good.skipped_updates, good.consecutive_failures = failed.skipped_updates, {}
    return good


def apply_fallback(state: TrainingState) -> torch.dtype:
    """Set the learning rates of the fallback level; return the dtype of the convolutions."""
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 ** _halvings(state)
    return torch.float32 if state.fallback_level else getattr(torch, state.precision)


def describe_fallback(state: TrainingState, config: GanConfig) -> str:
    """Return the fallbacks in words: ``gan.precision=float32 and gan.cgan_lr x 0.25``."""
    parts = []
    if state.fallback_level and state.precision != "float32":
        parts.append("gan.precision=float32")
    if halvings := _halvings(state):
        rates = "gan.cgan_lr" if config.method == "cgan" else "gan.g_lr and gan.d_lr"
        parts.append(f"{rates} x {0.5**halvings:g}")
    return " and ".join(parts) or "no fallback"


def _halvings(state: TrainingState) -> int:
    return max(0, state.fallback_level - (state.precision != "float32"))
