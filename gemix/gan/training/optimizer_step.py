"""One optimizer step of one network, skipped where its gradients are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from gemix.core.distributed import Workers


class OptimizerStep:
    """Train one network: average its gradients over the workers and take an optimizer step.

    A context manager around the forward and backward pass of a phase. Gradients that are not finite
    after the average, which every worker sees alike, are dropped: no weight and no optimizer moment
    changes.

    Args:
        network: the one that is trained.
        optimizer: of the network's parameters.
        others: networks that take part in the loss and stay as they are.
        frozen: parameters of the network that stay as they are as well (Freeze-D).
        on_result: called at the end of each step with `applied`.

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
        on_result: Callable[[bool], None] = lambda applied: None,
    ):
        fixed = {id(parameter.requires_grad_(False)) for parameter in frozen}
        self.trainable = [p for p in network.parameters() if id(p) not in fixed]
        self.others = [p for other in others for p in other.parameters()]
        self.optimizer, self.workers, self.on_result = optimizer, workers, on_result
        self.applied = False

    def __enter__(self) -> OptimizerStep:
        for parameter in self.others:
            parameter.requires_grad = False
        for parameter in self.trainable:
            parameter.requires_grad = True
            parameter.grad = None
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        for parameter in self.trainable:
            parameter.requires_grad = False
        if kind is not None:
            return
        gradients = [p.grad for p in self.trainable if p.grad is not None]
        self.workers.all_reduce_grads(gradients)
        self.applied = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if self.applied:
            self.optimizer.step()
        self.on_result(self.applied)
