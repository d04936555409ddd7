"""Gradients are averaged over workers, bucket by bucket, while the backward pass runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gemix.core.distributed import Workers
from gemix.core.gradient_buckets import GradientBuckets
from tests.processes import run_processes

STEPS = 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))


def inputs(rank: int, step: int) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(10 * step + rank))


class LoggingWorkers(Workers):
    """Note every message, among what else happens."""

    events: list[object] = []  # noqa: RUF012

    def all_reduce_async(self, value):
        self.events.append(value.numel())
        return super().all_reduce_async(value)


def run_worker(rank: int, folder: str, dtype: torch.dtype, bucket_bytes: int) -> None:
    place = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    net, workers = network(), LoggingWorkers(rank, 2)
    unused = nn.Parameter(torch.zeros(3))
    parameters = [unused, *net.parameters()]
    buckets = GradientBuckets(
        parameters, workers, dtype=dtype, first_bucket_bytes=30, bucket_bytes=bucket_bytes
    )
    found = []
    for step in range(STEPS):
        for parameter in parameters:
            parameter.grad = None
        net(inputs(rank, step)).square().mean().backward()  # an earlier pass of the step
        buckets.start()
        net(-inputs(rank, step)).square().mean().backward()
        workers.events.append("backward is over")
        found.append([gradient.clone() for gradient in buckets.finish()])
        assert unused.grad is None
    torch.save((found, workers.events), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def expected(step: int) -> list[torch.Tensor]:
    net = network()
    for rank in range(2):
        for sign in (1, -1):
            (net(sign * inputs(rank, step)).square().mean() / 2).backward()
    return [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str
)
def test_gradients_are_averaged_while_the_backward_pass_runs(tmp_path, dtype, tolerance):
    run_processes(run_worker, args=(str(tmp_path), dtype, 600), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for found, _ in results:
        for step, gradients in enumerate(found):
            for ours, right in zip(gradients, expected(step), strict=True):
                assert (ours - right).norm() / right.norm() < tolerance
    (first, events), (second, others) = results
    assert all(
        torch.equal(a, b)
        for of_first, of_second in zip(first, second, strict=True)
        for a, b in zip(of_first, of_second, strict=True)
    )
    assert events == others
    # in reverse: biases of 8 and weights of 64 numbers, until a bucket has 30, or 600 bytes
    over, messages = "backward is over", [8, 64 + 8 + 64 + 8 + 64, 8 + 64]
    assert events[:4] == [over, *messages]  # the first step shows what there are gradients of
    assert events[4:] == [*messages, over] * (STEPS - 1)


def test_a_single_worker_keeps_its_gradients():
    net = network()
    buckets = GradientBuckets(list(net.parameters()), Workers())
    buckets.start()
    net(inputs(0, 0)).square().mean().backward()
    before = [parameter.grad.clone() for parameter in net.parameters()]
    after = buckets.finish()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def run_replica(rank: int, folder: str) -> None:
    place = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=3)
    workers = Workers.from_process_group()
    tensors = {
        "same": torch.arange(7.0),
        "half": torch.arange(6.0).bfloat16(),
        "count": torch.tensor(3),
        "swapped": torch.tensor([1.0, 2.0] if rank < 2 else [2.0, 1.0]),
        "one bit": torch.tensor(1.0 + (rank == 1) * 2**-23),
        "flag": torch.tensor(rank != 1),
    }
    first = workers.differing(tensors)
    workers.broadcast_tensors(tensors.values())
    Path(f"{folder}/{rank}").write_text(repr((first, workers.differing(tensors))))
    dist.destroy_process_group()


def test_replicas_that_differ_are_named_on_every_worker(tmp_path):
    run_processes(run_replica, args=(str(tmp_path),), nprocs=3)
    for rank in range(3):
        found = (tmp_path / str(rank)).read_text()
        assert found == repr((["swapped", "one bit", "flag"], []))
