"""Average gradients over the workers while the backward pass still runs.

The scheme of torch's DistributedDataParallel (Li et al., "PyTorch Distributed: Experiences on
accelerating data parallel training", VLDB 2020, section 3.2): parameters are grouped into buckets
in the reverse of their order in the network, about the order in which their gradients become ready,
and a bucket is all-reduced as soon as it has all of its gradients. DistributedDataParallel itself
wants one forward pass of one module for each backward pass; a phase of a GAN calls parts of two
networks, some of them twice, differentiates gradients, and trains one network of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gemix.core.distributed import Workers

# as DistributedDataParallel: the first message is small, so that it leaves early
FIRST_BUCKET_BYTES, BUCKET_BYTES = 2**20, 25 * 2**20


@dataclasses.dataclass(eq=False)
class _Bucket:
    parameters: list[nn.Parameter]
    missing: int = 0  # gradients that are not ready
    flat: Tensor | None = None
    work: dist.Work | None = None


class GradientBuckets:
    """Gradients of one network in one phase, averaged over the workers.

    Call :meth:`start` before the last backward pass of a step and :meth:`finish` after it. The
    first step shows which parameters the phase has gradients of, and is averaged at its end; from
    the second on all-reduces overlap with the backward pass. Both sum in the same order. Workers
    must have gradients of the same parameters.

    Args:
        parameters: in the order of the network.
        dtype: of the messages: bfloat16 halves them, at 8 bits of precision.
        first_bucket_bytes, bucket_bytes: size of the first message and of the others, before they
            are converted to `dtype`.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        workers: Workers,
        *,
        dtype: torch.dtype = torch.float32,
        first_bucket_bytes: int = FIRST_BUCKET_BYTES,
        bucket_bytes: int = BUCKET_BYTES,
    ):
        self.parameters, self.workers = list(parameters), workers
        self.dtype = dtype
        self.first_bucket_bytes, self.bucket_bytes = first_bucket_bytes, bucket_bytes
        self.buckets: list[_Bucket] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        self._launched = 0
        self._is_started = False

    def start(self) -> None:
        """All-reduce each bucket as soon as the backward pass that follows has filled it."""
        if self.workers.size == 1:
            return
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)
        self._launched, self._is_started = 0, True  # an error may have ended the step before

    def finish(self) -> list[Tensor]:
        """Return the gradients, averaged over the workers in place.

        Waits for all messages; on a GPU its stream does, and not the host.
        """
        trained = [p for p in self.parameters if p.grad is not None]
        if self.workers.size == 1:
            return [p.grad for p in trained]
        self._is_started = False
        if {p for bucket in self.buckets for p in bucket.parameters} != set(trained):
            for bucket in self.buckets[: self._launched]:
                bucket.work.wait()
            self._group(trained)
        while self._launched < len(self.buckets):
            self._launch()
        for bucket in self.buckets:
            bucket.work.wait()
            parts = bucket.flat.split([p.numel() for p in bucket.parameters])
            means = [part.view_as(p) for part, p in zip(parts, bucket.parameters, strict=True)]
            grads = [p.grad for p in bucket.parameters]
            torch._foreach_copy_(grads, means)
            torch._foreach_div_(grads, self.workers.size)
            bucket.flat = bucket.work = None
        self._launched = 0
        return [p.grad for p in trained]

    def _group(self, trained: Sequence[nn.Parameter]) -> None:
        """Group the parameters that have a gradient, and watch for the gradients of later steps."""
        self.buckets, self._launched = [], 0
        left = 0
        for parameter in reversed(trained):
            if left <= 0:
                left = self.bucket_bytes if self.buckets else self.first_bucket_bytes
                self.buckets.append(_Bucket([]))
            self.buckets[-1].parameters.append(parameter)
            left -= parameter.numel() * parameter.element_size()
            if parameter not in self._bucket_of:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)
            self._bucket_of[parameter] = self.buckets[-1]

    def _on_gradient(self, parameter: nn.Parameter) -> None:
        if not self._is_started:  # another phase, or an earlier pass of this one
            return
        self._bucket_of[parameter].missing -= 1
        # in one order on all workers, whatever the order in which gradients become ready
        while self._launched < len(self.buckets) and not self.buckets[self._launched].missing:
            self._launch()

    def _launch(self) -> None:
        bucket = self.buckets[self._launched]
        bucket.flat = torch.cat([p.grad.flatten() for p in bucket.parameters]).to(self.dtype)
        bucket.work = self.workers.all_reduce_async(bucket.flat)
        self._launched += 1
