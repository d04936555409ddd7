"""Notice that a training diverges: the gradients of a phase are not finite, time after time.

A single failure is skipped (:mod:`gemix.gan.training.optimizer_step`) and counted. What follows
when a phase keeps failing is in :mod:`gemix.gan.training.fallback`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gemix.core.device import HostCopy
from gemix.core.errors import GemixError
from gemix.gan.training.state import TrainingState


class DivergedError(GemixError):
    """Gradients are not finite, step after step."""


class DivergenceMonitor:
    """Count the skipped optimizer steps of a training, phase by phase.

    A phase that runs once in 16 steps is counted in its own runs: it fails in a row where it fails
    each time that it runs, whatever other phases do in between.

    Args:
        state: where the counts are kept, on its device.
        phases: names of the method's phases, in the order of ``state.phase_failures``.
        patience: number of consecutive failures of one phase that are too many.
        hint: settings that stabilize the method, in words.
    """

    def __init__(self, state: TrainingState, phases: Sequence[str], patience: int, hint: str):
        self.state, self.phases, self.patience, self.hint = state, phases, patience, hint
        self._copied: HostCopy | None = None

    def record(self, phase: str, applied: Tensor) -> None:
        """Count the result of a phase's optimizer step, a bool scalar on the device."""
        failures = self.state.phase_failures[self.phases.index(phase)]
        failures.add_(1).mul_(~applied)
        self.state.skipped_updates += ~applied

    def check(self, *, is_last: bool) -> None:
        """Raise if a phase fails too often; called after each step.

        On a GPU the counts are those of the step before, whose copy the host need not wait for;
        only after the last step it does.

        Raises:
            DivergedError: after `patience` consecutive failures of one phase.
        """
        copied, self._copied = self._copied, HostCopy(self.state.phase_failures)
        if is_last or not self.state.phase_failures.is_cuda:
            copied = self._copied
        if copied is None:
            return
        for phase, count in zip(self.phases, copied.wait().tolist(), strict=True):
            if count >= self.patience:
                raise DivergedError(
                    f"the gradients of the {phase} phase are not finite in {count} steps in a row "
                    f"that ran it, up to step {self.state.step}; resume from the newest checkpoint "
                    f"with {self.hint}"
                )
