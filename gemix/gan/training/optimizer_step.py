"""One optimizer step of one network, or none where its gradients are not finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from gemix.core.distributed import Workers


class OptimizerStep:
    """Within: only this network learns. At the end: gradients are averaged and applied.

    Gradients that are not finite after the average, which every worker sees alike, are dropped
    and no weight or optimizer moment changes.

    Args:
        others: networks that take part in the loss and stay as they are.
        frozen: parameters of the network that stay as they are as well (Freeze-D).

    Attributes:
        applied: whether the last step was taken.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        workers: Workers,
        *,
        others: Iterable[nn.Module] = (),
        frozen: Iterable[nn.Parameter] = (),
    ):
        fixed = {id(parameter.requires_grad_(False)) for parameter in frozen}
        self.learning = [p for p in network.parameters() if id(p) not in fixed]
        self.others = [p for other in others for p in other.parameters()]
        self.optimizer, self.workers = optimizer, workers
        self.applied, self.skipped = False, 0

    def __enter__(self) -> OptimizerStep:
        for parameter in self.others:
            parameter.requires_grad = False
        for parameter in self.learning:
            parameter.requires_grad = True
            parameter.grad = None
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        for parameter in self.learning:
            parameter.requires_grad = False
        if kind is not None:
            return
        gradients = [p.grad for p in self.learning if p.grad is not None]
        self.workers.all_reduce_grads(gradients)
        self.applied = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if self.applied:
            self.optimizer.step()
        else:
            self.skipped += 1

    def take_skipped(self) -> int:
        """How many steps were dropped since this was last asked."""
        skipped, self.skipped = self.skipped, 0
        return skipped
