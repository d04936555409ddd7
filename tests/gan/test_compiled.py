"""Compiled phases compute what eager ones do.

But for the slow test, what the compiler's front end finds is run by PyTorch itself (backend
aot_eager), as generating code takes minutes. The front end has all that can change the results but
for the order of sums.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gemix.core.device import CompileError
from gemix.core.distributed import Workers
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from tests.gan.test_training import ARCHITECTURE as LARGER
from tests.gan.test_training import CPU, assert_same, tiny_config, weights

SIZES = {"mapping_layers": 1, "channel_base": 64, "channel_max": 8}
ARCHITECTURE = dataclasses.replace(LARGER, resolution=8, d_mapping_layers=1, **SIZES)
PHASES = {
    "stylegan2-ada": (
        "train_generator",
        "regularize_generator",
        "train_discriminator",
        "regularize_discriminator",
    ),
    "cgan": ("train_generator", "train_discriminator"),
}
EVERY_PHASE = [(method, phase) for method, phases in PHASES.items() for phase in phases]
# Of a phase's gradient in float32, where the order of sums differs. A leaky ReLU whose input lies
# within rounding of 0 can differ in sign, which moves the gradient by 2e-4; flat images, whose
# pixels are all alike, make that likely, and noise makes it rare.
RELATIVE = 1e-5
# Of how far a training moves the weights. With beta1 = 0 Adam divides a gradient by its own size,
# so rounding in a gradient near 0 moves a weight as far as any other gradient does.
OF_THE_WAY = 1e-3


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def front_end(monkeypatch):
    """Compiles without generating code."""
    patched = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr("gemix.gan.acceleration.compile.torch.compile", patched)


def config(**changes) -> GanConfig:
    settings = {"augment": "bgc", "augment_p": 0.7, "compile": True}
    return tiny_config(**(SIZES | settings | changes))


def noise_images(architecture=ARCHITECTURE) -> InMemoryDataset:
    rng = np.random.default_rng(0)
    side, classes = architecture.resolution, architecture.label_dim
    images = rng.integers(0, 256, (40, architecture.img_channels, side, side), dtype=np.uint8)
    labels = np.eye(max(classes, 1), dtype=np.float32)[np.arange(40) % max(classes, 1), :classes]
    return InMemoryDataset(images, labels, seed=3)


def spec_of(settings: GanConfig) -> TrainingSpec:
    return TrainingSpec(
        architecture=ARCHITECTURE, config=settings, classes=("a", "b", "c"), data_digest="d"
    )


class Apart(Workers):
    """One of several workers, who keeps its gradients to itself."""

    def all_reduce_async(self, value):
        value *= self.size  # as if the others had the same
        return SimpleNamespace(wait=lambda: None)

    def broadcast_tensors(self, tensors):
        pass

    def all_reduce_mean(self, value):
        return value


def gradients(settings, phase, architecture=ARCHITECTURE, workers=Workers()):  # noqa: B008
    """What a phase of the first step returns, and its gradients by name; None for no gradient."""
    state = new_state(architecture, settings, CPU)
    trainer = METHODS[settings.method](state, noise_images(architecture), settings, workers)
    value = getattr(trainer, phase)()
    network = state.generator if "generator" in phase else state.discriminator
    return value, {name: parameter.grad for name, parameter in network.named_parameters()}


def flat(by_name: dict[str, torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([g.flatten() for g in by_name.values() if g is not None])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative to the second, which must not be nothing."""
    assert b.norm() > 0
    return float((a - b).norm() / b.norm())


def assert_same_phase(settings: GanConfig, phase: str, architecture=ARCHITECTURE) -> None:
    eager = dataclasses.replace(settings, compile=False)
    loss, reference = gradients(eager, phase, architecture)
    compiled_loss, found = gradients(settings, phase, architecture)
    # Adam leaves a parameter without a gradient alone, but not one with a gradient of zeros
    assert [n for n in found if (found[n] is None) != (reference[n] is None)] == []
    assert distance(flat(found), flat(reference)) < RELATIVE
    assert torch.allclose(compiled_loss, loss, rtol=RELATIVE, atol=1e-6)


def trained(settings: GanConfig) -> TrainingState:
    return train(new_state(ARCHITECTURE, settings, CPU), noise_images(), settings)


def way(state: TrainingState, settings: GanConfig) -> torch.Tensor:
    start = weights(new_state(ARCHITECTURE, settings, CPU))
    return torch.cat([(w - start[name]).flatten() for name, w in weights(state).items()])


@pytest.mark.parametrize(("method", "phase"), EVERY_PHASE)
def test_every_phase_has_the_gradients_of_eager_mode(front_end, method, phase):
    assert_same_phase(config(method=method), phase)


@pytest.mark.parametrize(
    ("phase", "classes", "channels"),
    [
        ("regularize_generator", 5, 3),
        ("train_discriminator", 0, 3),
    ],
)
def test_any_count_of_classes_and_channels_compiles(front_end, phase, classes, channels):
    architecture = dataclasses.replace(ARCHITECTURE, label_dim=classes, img_channels=channels)
    # of the augmentations, colour is what the channels change
    assert_same_phase(config(augment="c"), phase, architecture)


@pytest.mark.parametrize("phase", ["train_generator", "train_discriminator"])
def test_label_mixing_and_the_auxiliary_classifier_compile(front_end, phase):
    architecture = dataclasses.replace(ARCHITECTURE, auxiliary_classifier=True)
    settings = config(augment="c", label_mixing=0.5, classifier_weight=0.5)
    assert_same_phase(settings, phase, architecture)


def test_a_batch_split_among_workers_has_the_gradients_of_the_whole(front_end):
    settings, phase = config(batch=16, augment="b"), "train_discriminator"
    _, whole = gradients(settings, phase)
    parts = [gradients(settings, phase, workers=Apart(rank, 2))[1] for rank in range(2)]
    mean = torch.stack([flat(part) for part in parts]).mean(dim=0)
    assert distance(mean, flat(whole)) < RELATIVE
    assert distance(flat(parts[0]), flat(whole)) > 1e-2  # the parts do differ


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_training_ends_where_eager_training_does_and_resumes_exactly(front_end, tmp_path, method):
    # p goes from 0 up: a graph each; the regularizers, compiled above, would double them
    settings = config(method=method, augment="g", augment_p=None, ada_target=0)
    if method != "cgan":
        settings = dataclasses.replace(settings, pl_weight=0.0, r1_gamma=0.0)
    undisturbed, eager = trained(settings), trained(dataclasses.replace(settings, compile=False))
    assert undisturbed.augment_p == eager.augment_p
    assert distance(way(undisturbed, settings), way(eager, settings)) < OF_THE_WAY
    save_checkpoint(
        Store(tmp_path), trained(dataclasses.replace(settings, kimg=0.024)), spec_of(settings)
    )
    torch.compiler.reset()  # a new process compiles anew
    resumed = resume_or_start(Store(tmp_path), spec_of(settings), CPU)
    assert resumed.step == 3
    assert_same(weights(train(resumed, noise_images(), settings)), weights(undisturbed))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler, g++")
def test_generated_code_has_the_gradients_of_eager_mode_and_the_same_each_time():
    settings, phase = config(), "regularize_discriminator"  # a derivative of a derivative
    assert_same_phase(settings, phase)
    first, second = (flat(gradients(settings, phase)[1]) for _ in range(2))
    assert torch.equal(first, second)


def test_a_training_may_go_on_without_the_compiler(tmp_path):
    state = trained(config(compile=False, kimg=0.008))
    save_checkpoint(Store(tmp_path), state, spec_of(config(compile=True)))
    assert resume_or_start(Store(tmp_path), spec_of(config(compile=False)), CPU).step == 1


def test_a_failing_compiler_is_told_with_its_remedy(monkeypatch):
    def backend(*args, **kwargs):
        raise OSError("no C++ compiler")

    patched = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr("gemix.gan.acceleration.compile.torch.compile", patched)
    with pytest.raises(CompileError, match=r"no C\+\+ compiler.*gan\.compile=false"):
        trained(config())
