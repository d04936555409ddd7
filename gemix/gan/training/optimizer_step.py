"""One optimizer step of one network, skipped where its gradients are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gemix.core.distributed import Workers
from gemix.core.gradient_buckets import GradientBuckets


class OptimizerStep:
    """Train one network: average its gradients over the workers and take an optimizer step.

    A context manager around the forward and backward passes of a phase. Gradients that are not
    finite after the average, which every worker sees alike, are dropped: no weight and no optimizer
    moment changes. The optimizer's kernel decides that on the device, so that the host does not
    wait for it.

    Args:
        network: the one that is trained.
        optimizer: of the network's parameters; it must be fused.
        rounds: number of backward passes of a step, of parts of this worker's share of the batch.
        others: networks that take part in the loss and stay as they are.
        frozen: parameters of the network that stay as they are as well (Freeze-D).
        allreduce_dtype: of the gradients that workers exchange.
        on_result: called at the end of each step with `applied`.

    Attributes:
        applied: whether the last step was taken, bool scalar on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        workers: Workers,
        *,
        rounds: int = 1,
        others: Iterable[nn.Module] = (),
        frozen: Iterable[nn.Parameter] = (),
        allreduce_dtype: torch.dtype = torch.float32,
        on_result: Callable[[Tensor], None] = lambda applied: None,
    ):
        fixed = {id(parameter.requires_grad_(False)) for parameter in frozen}
        self.trainable = [p for p in network.parameters() if id(p) not in fixed]
        self.others = [p for other in others for p in other.parameters()]
        self.optimizer, self.rounds, self.on_result = optimizer, rounds, on_result
        self.buckets = GradientBuckets(self.trainable, workers, dtype=allreduce_dtype)
        self.applied: Tensor | None = None
        self._round = 0

    def __enter__(self) -> OptimizerStep:
        for parameter in self.others:
            parameter.requires_grad = False
        for parameter in self.trainable:
            parameter.requires_grad = True
            parameter.grad = None
        self._round = 0
        return self

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss of one round; a step's loss is the mean of its rounds."""
        self._round += 1
        if self._round == self.rounds:
            self.buckets.start()
        (loss if self.rounds == 1 else loss / self.rounds).backward()
        if self._round == 1 < self.rounds:
            # a compiled phase returns gradients in memory that its next call reuses
            for parameter in self.trainable:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        gradients = self.buckets.finish() if kind is None else []
        for parameter in self.trainable:
            parameter.requires_grad = False
        if kind is None:
            self.update(gradients)

    def update(self, gradients: list[Tensor]) -> None:
        """Take the optimizer's step, if the averaged gradients are finite."""
        norm = torch.nn.utils.get_total_norm(gradients)
        self.applied = torch.isfinite(norm)
        self.optimizer.found_inf = (~self.applied).float()  # as torch.amp.GradScaler tells Adam
        self.optimizer.step()
        self.on_result(self.applied)
