"""Notice that a training diverges: the gradients of a phase are not finite, time after time.

A single failure is skipped (:mod:`gemix.gan.training.optimizer_step`) and counted. What follows
when a phase keeps failing is in :mod:`gemix.gan.training.fallback`.
"""

from __future__ import annotations

from gemix.core.errors import GemixError
from gemix.gan.training.state import TrainingState


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
