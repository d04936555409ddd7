"""Our networks and losses against reference numbers of the public StyleGAN2-ADA.

``GEMIX_PARITY`` names another folder of reference files to test against.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gemix.gan.importers.stylegan2 import load_networks
from gemix.gan.losses import adversarial, regularizers
from gemix.gan.models.fir import fir_filter, upfirdn2d

NETWORKS = ["stylegan2_c3_32px_gray.npz", "stylegan2_c0_16px_rgb.npz"]
RELATIVE = 1e-4


def parity_file(shared, name: str) -> Path:
    folder = os.environ.get("GEMIX_PARITY")
    return Path(folder) / name if folder else shared(f"parity/{name}")


def assert_close(ours: torch.Tensor, theirs: np.ndarray, what: str = "", floor=1e-12) -> None:
    """Relative to the largest reference value, or to `floor` where all of them are smaller."""
    theirs = torch.from_numpy(np.asarray(theirs))
    assert ours.shape == theirs.shape, what
    error = (ours.detach() - theirs).abs().max() / theirs.abs().max().clamp_min(floor)
    assert error < RELATIVE, f"{what}: relative error {error:.2e}"


class Case:
    """One reference file with our networks holding its weights."""

    def __init__(self, path: Path):
        self.ref = np.load(path, allow_pickle=False)
        self.config = json.loads(str(self.ref["config"]))
        self.generator, self.discriminator = load_networks(
            self.state("G."),
            self.state("D."),
            mbstd_group_size=self.config["mbstd_group_size"],
        )
        self.label = self["in.c"] if self.config["c_dim"] else None

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.ref[key])

    def state(self, prefix: str) -> dict[str, torch.Tensor]:
        names = [k for k in self.ref.files if k.startswith(prefix)]
        return {k.removeprefix(prefix): self[k] for k in names}

    def assert_gradients(self, network: torch.nn.Module, prefix: str) -> None:
        reference = {k for k in self.ref.files if k.startswith(prefix)}
        # a gradient that cancels to a ten-thousandth of the network's largest is rounding residue
        floor = 1e-4 * max(float(np.abs(self.ref[k]).max()) for k in reference)
        for name, parameter in network.named_parameters():
            key = prefix + name
            if key in reference:
                assert_close(parameter.grad, self.ref[key], key, floor)
                reference.remove(key)
        assert not reference, f"gradients without a parameter: {sorted(reference)}"


@pytest.fixture(scope="module", params=NETWORKS)
def case(request, shared) -> Case:
    return Case(parity_file(shared, request.param))


def test_architecture_is_read_off_the_weights(case):
    architecture = case.generator.architecture
    for key in ("resolution", "z_dim", "w_dim", "img_channels", "mapping_layers", "channel_max"):
        assert getattr(architecture, key) == case.config[key]
    assert architecture.label_dim == case.config["c_dim"]


@pytest.mark.parametrize(("key", "psi"), [("out.ws", 1.0), ("out.ws_psi0.5", 0.5)])
def test_mapping(case, key, psi):
    assert_close(case.generator.map(case["in.z"], case.label, psi), case.ref[key])


@pytest.mark.parametrize("mode", ["const", "none"])
def test_synthesis(case, mode):
    synthesis = case.generator.synthesis
    noise = synthesis.noise_const() if mode == "const" else None
    assert_close(synthesis(case["out.ws"], noise), case.ref[f"out.image_{mode}"])


def test_logits(case):
    assert_close(case.discriminator(case["in.x"], case.label), case.ref["out.logits_real"])


def test_generator_loss_and_gradients(case):
    case.generator.zero_grad()
    noise = case.generator.synthesis.noise_const()
    images = case.generator(case["in.z"], case.label, noise)
    loss = adversarial.nonsaturating_generator_loss(case.discriminator(images, case.label))
    assert_close(loss, case.ref["loss.G"])
    loss.backward()
    case.assert_gradients(case.generator, "gradG.")


def test_r1_and_its_gradients(case):
    case.discriminator.zero_grad()
    penalty = regularizers.r1_penalty(lambda x: case.discriminator(x, case.label), case["in.x"])
    assert_close(penalty, case.ref["r1.per_image"])
    (penalty.mean() / 2).backward()
    case.assert_gradients(case.discriminator, "gradD_r1.")


def path_lengths(case) -> torch.Tensor:
    generator = case.generator
    ws, noise = generator.map(case["in.z"], case.label), generator.synthesis.noise_const()
    return regularizers.path_lengths(
        lambda ws: generator.synthesis(ws, noise), ws, case["pl.noise"]
    )


def test_path_lengths(case):
    assert_close(path_lengths(case), case.ref["pl.lengths"])


def test_path_length_penalty_and_its_gradients(case):
    """Equation 4, with a running mean that is updated by the batch and differentiated through.

    The value follows from the reference lengths; of the gradient there is no reference, so it is
    held against that of the same formula, written down without regard to workers.
    """
    start, decay = 0.1 * float(case["pl.lengths"].mean()), 0.01

    def gradient(penalty: torch.Tensor) -> torch.Tensor:
        parameters = list(case.generator.parameters())
        found = torch.autograd.grad(penalty, parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    own = path_lengths(case)
    penalty, mean = regularizers.path_length_penalty(own, own.mean(), torch.tensor(start), decay)
    reference = case.ref["pl.lengths"].astype(np.float64)
    expected_mean = start + decay * (reference.mean() - start)
    assert mean.item() == pytest.approx(expected_mean, rel=RELATIVE)
    assert penalty.item() == pytest.approx(np.square(reference - expected_mean).mean(), rel=1e-3)
    ours = gradient(penalty)
    own = path_lengths(case)
    moving = start + decay * (own.mean() - start)
    whole = gradient((own - moving).square().mean())
    constant = gradient((path_lengths(case) - expected_mean).square().mean())
    assert (ours - whole).norm() / whole.norm() < RELATIVE
    assert (constant - whole).norm() / whole.norm() > 10 * RELATIVE  # the two do differ


def test_upfirdn2d(shared):
    ref = np.load(parity_file(shared, "upfirdn2d.npz"), allow_pickle=False)
    cases = json.loads(str(ref["cases"]))
    for index, case in enumerate(cases):
        ours = upfirdn2d(
            torch.from_numpy(ref["x"]),
            fir_filter(case["taps"]),
            up=case["up"],
            down=case["down"],
            padding=tuple(case["padding_x0x1y0y1"]),
            flip_filter=case["flip_filter"],
            gain=case["gain"],
        )
        assert_close(ours, ref[f"y{index}"], f"case {index}")
