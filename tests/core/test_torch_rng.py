"""Random numbers drawn on the device are a function of (seed, stream, index, step)."""

from __future__ import annotations

import pytest
import torch

from gemix.core.rng import Stream
from gemix.core.torch_rng import draw, philox4x32
from tests.triton_interpreter import run_interpreted


def drawn(seed=1, stream=Stream.G_LATENT, indices=range(8), step=3, uniforms=17, normals=21):
    """Uniform and normal numbers of each sample, side by side."""
    parts = draw(
        seed,
        stream,
        torch.tensor(indices),
        torch.tensor([step]),
        uniforms=uniforms,
        normals=normals,
    )
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers of the algorithm's authors
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_bits_are_those_of_philox(counter, key, words):
    got = philox4x32(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert [int(word) for word in got] == words


def test_a_draw_depends_on_the_four_numbers_and_not_on_the_batch():
    whole = drawn()
    assert torch.equal(whole, torch.cat([drawn(indices=[i]) for i in range(8)]))
    others = [drawn(seed=2), drawn(seed=2**40), drawn(stream=Stream.D_LATENT), drawn(step=4)]
    for one in others:
        assert (one != whole).double().mean() > 0.99
    assert len({tuple(row) for one in [whole, *others] for row in one.tolist()}) == 5 * 8


@pytest.mark.parametrize(("uniforms", "normals"), [(0, 6), (3, 0), (1, 5), (2, 1)])
def test_as_many_numbers_as_are_asked_for(uniforms, normals):
    assert drawn(uniforms=uniforms, normals=normals).shape == (8, uniforms + normals)


def test_normal_numbers_are_normal_and_independent():
    draws = drawn(indices=range(200), uniforms=0, normals=501).double()
    assert abs(draws.mean()) < 0.01 and abs(draws.std() - 1) < 0.01
    assert abs(draws.pow(3).mean()) < 0.03 and abs(draws.pow(4).mean() - 3) < 0.1
    for rows in (draws, draws.t()):
        correlation = torch.corrcoef(rows)
        correlation.fill_diagonal_(0)
        assert correlation.abs().max() < 0.4


def test_uniform_numbers_fill_the_unit_interval_evenly():
    draws = drawn(indices=range(400), uniforms=250, normals=0)
    assert draws.min() >= 0 and draws.max() < 1
    shares = torch.histc(draws, bins=10, min=0, max=1) / draws.numel()
    assert (shares - 0.1).abs().max() < 0.005


def test_the_numbers_never_change():
    # a seed must mean the same training after an upgrade
    expected = [0.046822993, 0.060296949, 0.061074816]
    got = drawn(7, Stream.G_LATENT, [1], 2, uniforms=1, normals=2)[0]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_a_compiled_graph_draws_the_same():
    def shifted(indices: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return draw(1, Stream.G_LATENT, indices, step, normals=21)[1] + 1

    graph = torch.compile(shifted, fullgraph=True, backend="aot_eager")
    arguments = torch.arange(8), torch.tensor([3])
    assert torch.equal(graph(*arguments), shifted(*arguments))


INTERPRETED = """
import sys, torch
from gemix.core import philox_triton, torch_rng
assert torch_rng._gpu_draw(torch.device("cpu")) is philox_triton.draw
arguments = torch.tensor([0, 5, 2**32 - 1]), torch.tensor([123456])
for uniforms, normals in ((3, 0), (0, 7), (24, 8), (3, 1025), (1, 1)):
    for stream, low, high in ((7, 0xDEADBEEF, 0x1234567), (1, 1, 0), (0, 0xFFFFFFFF, 0xFFFFFFFF)):
        key = stream, low, high, uniforms, normals
        uniform, normal = torch_rng.reference_draw(*arguments, *key)
        got_uniform, got_normal = philox_triton.draw(*arguments, *key)
        assert torch.equal(got_uniform, uniform) and got_uniform.dtype == uniform.dtype
        assert got_normal.shape == normal.shape and got_normal.dtype == normal.dtype
        torch.testing.assert_close(got_normal, normal, rtol=5e-7, atol=1e-30)
"""


def test_the_kernel_for_gpus_draws_the_same_numbers():
    """In Triton's interpreter; tests/gpu runs it compiled."""
    run_interpreted(INTERPRETED)
