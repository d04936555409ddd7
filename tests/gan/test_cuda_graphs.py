"""Phases replayed from static memory train as eager ones do.

No CPU has CUDA graphs. Here each phase behaves as a graph does for the one who calls it: arguments
are copied into the memory of the first ones, and a call of any phase overwrites the results and
gradients of all phases before. ``tests/gpu`` captures real graphs.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import sys

import pytest
import torch

from gemix.core.errors import GemixError
from gemix.gan.acceleration.cuda_graphs import CaptureError, capture_phase
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from tests.gan.test_training import ARCHITECTURE, CPU, assert_same, disks, tiny_config, weights


class StaticMemory:
    """Stands for ``torch.cuda.make_graphed_callables`` with one pool of memory."""

    def __init__(self):
        self.written: list[torch.Tensor] = []  # by the phase that ran last
        self.captured = 0

    def make_graphed_callables(self, phase, samples, *, allow_unused_input, pool):
        self.captured += 1
        parameters = [p for p in phase.parameters() if p.requires_grad]
        eager, memory = phase.forward, self

        class Graph(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *inputs):
                for old in memory.written:
                    old.fill_(float("nan"))
                for sample, given in zip(samples, inputs, strict=False):
                    sample.copy_(given)
                with torch.enable_grad():
                    found = eager(*samples)
                found = (found,) if isinstance(found, torch.Tensor) else found
                ctx.found = [output for output in found if output.requires_grad]
                ctx.needs = [output.requires_grad for output in found]
                memory.written = [output.detach().clone() for output in found]
                return tuple(output.view_as(output) for output in memory.written)

            @staticmethod
            def backward(ctx, *gradients):
                wanted = [g for g, needs in zip(gradients, ctx.needs, strict=True) if needs]
                found = torch.autograd.grad(
                    ctx.found, parameters, wanted, allow_unused=allow_unused_input
                )
                memory.written += [g for g in found if g is not None]
                return *[None] * len(samples), *found

        def replay(*tensors):
            outputs = Graph.apply(*tensors, *parameters)
            return outputs if len(outputs) > 1 else outputs[0]

        return replay


def trained(changes):
    settings = tiny_config(**({"augment": "bgc", "ada_target": 0} | changes))
    architecture = dataclasses.replace(
        ARCHITECTURE, auxiliary_classifier=bool(changes.get("classifier_weight"))
    )
    state = new_state(architecture, settings, CPU)
    return train(state, disks(), settings)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "cgan"},
        {"accumulate": 2},
        {"augment": "none"},
        {"label_mixing": 0.5, "classifier_weight": 0.5},
    ],
    ids=str,
)
def test_replayed_phases_train_as_eager_ones(monkeypatch, changes):
    eager, memory = trained(changes), StaticMemory()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", memory.make_graphed_callables)
    method = METHODS[changes.get("method", "stylegan2-ada")]
    module, graphs = sys.modules[method.__module__], functools.partial(capture_phase, pool=None)
    monkeypatch.setattr(module, "accelerator", lambda config, device: graphs)
    replayed = trained(changes)
    assert memory.captured == len(method.phases(tiny_config()))
    assert_same(weights(replayed), weights(eager))
    assert replayed.augment_p == eager.augment_p


def test_no_garbage_is_collected_while_a_phase_is_captured(monkeypatch):
    """Graphs of an earlier trainer are garbage, and freeing one ends a capture."""
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append("garbage is freed")

    def make_graphed_callables(phase, samples, **settings):
        seen.append("a capture begins")
        Cycle()
        for _ in range(10 * gc.get_threshold()[0]):
            seen.append([])  # what makes Python collect
        seen.append("it ends")
        return phase

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    Cycle()
    capture_phase(torch.square, torch.nn.Linear(1, 1), None)(torch.ones(1))
    gc.collect()
    freed, begin, end = "garbage is freed", "a capture begins", "it ends"
    assert [event for event in seen if event] == [freed, begin, end, freed]
    assert gc.isenabled()


def test_a_failing_capture_is_told_with_its_remedy(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fails)
    phase = capture_phase(torch.square, torch.nn.Linear(1, 1), None)
    with pytest.raises(CaptureError, match=r"when stream is capturing\).*gan\.cuda_graphs=false"):
        phase(torch.ones(1))
    assert issubclass(CaptureError, GemixError)
