"""What augmentations do to pixels, against formulas written down a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gemix.core.rng import Stream
from gemix.gan.augment.augment_set import AugmentSet, Draws
from gemix.gan.augment.augmenter import AUGMENT_SETS, Augmenter
from gemix.gan.augment.color import apply_color, color_transform
from gemix.gan.augment.geometry import rotate, scale, warp

STRENGTH = {"brightness": 0.2, "contrast": 0.5, "lumaflip": 1.0, "hue": 1.0, "saturation": 1.0}
NORMAL, UNIFORM = 0.7, 0.8  # every random number of the kind


def pixels(channels: int = 3) -> torch.Tensor:
    """Six of them, as an image [1, channels, 2, 3]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, 2, 3, generator=generator, dtype=torch.float64) * 2 - 1


def recolored(images, normal: float = NORMAL, uniform: float = UNIFORM, **strength):
    """Images under a set in which everything applies and every random number is the same."""
    draws = Draws(
        p=torch.ones(1, dtype=torch.float64),
        applied=torch.ones(1, 12, dtype=torch.bool),
        uniform=torch.full((1, 12), uniform, dtype=torch.float64),
        normal=torch.full((1, 8), normal, dtype=torch.float64),
    )
    return apply_color(images, color_transform(AugmentSet(**strength), draws))


def brightness(x):
    return x + 0.2 * NORMAL


def contrast(x):
    return x * 2 ** (0.5 * NORMAL)


def lumaflip(x):
    return x - 2 * luma(x)


def hue(x):
    """The plane of one luma turned by its complex coordinates."""
    r, g, b = x.split(1, dim=1)
    across = torch.complex((2 * r - g - b) / math.sqrt(6), (g - b) / math.sqrt(2))
    across = across * np.exp(1j * (2 * UNIFORM - 1) * math.pi)
    along, up = across.real / math.sqrt(6), across.imag / math.sqrt(2)
    return luma(x) + torch.cat([2 * along, up - along, -up - along], dim=1)


def saturation(x):
    return luma(x) + (x - luma(x)) * 2**NORMAL


def luma(x):
    return x.mean(dim=1, keepdim=True)


FORMULAS = {f.__name__: f for f in (brightness, contrast, lumaflip, hue, saturation)}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_color_transformation_is_its_formula(name):
    changed = recolored(pixels(), **{name: STRENGTH[name]})
    torch.testing.assert_close(changed, FORMULAS[name](pixels()))
    assert (changed - pixels()).abs().max() > 0.1


def test_all_apply_one_after_the_other_in_the_order_of_the_paper():
    expected = pixels()
    for formula in FORMULAS.values():
        expected = formula(expected)
    torch.testing.assert_close(recolored(pixels(), **STRENGTH), expected)


def test_hue_keeps_luma_and_a_third_of_a_turn_permutes_the_channels():
    turned = recolored(pixels(), uniform=0.1, hue=1.0)
    torch.testing.assert_close(luma(turned), luma(pixels()))
    torch.testing.assert_close(turned.norm(dim=1), pixels().norm(dim=1))
    third = recolored(pixels(), uniform=0.5 + 1 / 3, hue=1.0)
    torch.testing.assert_close(third, pixels().roll(1, dims=1))


def test_no_saturation_is_grey_of_the_same_luma():
    grey = recolored(pixels(), normal=-math.inf, saturation=1.0)
    torch.testing.assert_close(grey, luma(pixels()).expand_as(grey))


def test_the_luma_flip_negates_luma_keeps_color_and_undoes_itself():
    flipped = recolored(pixels(), lumaflip=1.0)
    torch.testing.assert_close(luma(flipped), -luma(pixels()))
    torch.testing.assert_close(flipped - luma(flipped), pixels() - luma(pixels()))
    torch.testing.assert_close(recolored(flipped, lumaflip=1.0), pixels())
    unflipped = recolored(pixels(), uniform=0.4, lumaflip=1.0)  # applies to every second
    torch.testing.assert_close(unflipped, pixels())


def test_a_grey_image_changes_as_its_color_image_does_in_the_mean():
    grey = pixels(channels=1)
    expected = recolored(grey.expand(-1, 3, -1, -1), **STRENGTH).mean(dim=1, keepdim=True)
    torch.testing.assert_close(recolored(grey, **STRENGTH), expected)


@pytest.mark.parametrize(
    ("name", "drawn", "spread"),
    [
        ("brightness", lambda m: m[:, 0, 3], 0.2),
        ("contrast", lambda m: m[:, 0, 0].log2(), 0.5),
        ("lumaflip", lambda m: m[:, 0, 1].sign(), 0.5),
        ("hue", lambda m: torch.atan2(m[:, 1, 0] - m[:, 2, 0], m[:, 0, 0] * 3 - 1), None),
        ("saturation", lambda m: (m[:, 0, 0] - m[:, 0, 1]).log2(), 1.0),
    ],
)
def test_strengths_are_those_of_the_paper(name, drawn, spread):
    """Standard deviations over 4,000 samples; hue is even over the whole circle."""
    assert getattr(AUGMENT_SETS["bgc"], name) == STRENGTH[name]
    alone = AugmentSet(**{name: STRENGTH[name]})
    augment, batch_index = Augmenter(alone, seed=2), torch.arange(4000)
    p = torch.ones(1, dtype=torch.float64)
    probe = torch.eye(4, dtype=torch.float64)[:3].reshape(1, 3, 2, 2)  # red, green, blue and black
    images, step = probe.expand(4000, -1, -1, -1), torch.tensor([0])
    changed = augment(images, Stream.AUGMENT_REAL, step, batch_index, p)
    red, green, blue, black = changed.flatten(2).unbind(2)
    values = drawn(torch.stack([red - black, green - black, blue - black, black], dim=2))
    if spread is None:
        quarters = torch.histc(values, bins=4, min=-math.pi, max=math.pi) / len(values)
        assert (quarters - 0.25).abs().max() < 0.03
    else:
        assert values.std().item() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(("size", "angle"), [(0.6, 0.0), (0.7, 0.0), (0.6, 0.3), (0.8, 0.3)])
def test_shrinking_a_fine_checkerboard_gives_grey(size, angle):
    row = torch.arange(32) % 2
    board = 2.0 * (row[:, None] ^ row)[None, None] - 1
    factor = torch.tensor([size], dtype=torch.float64)
    transform = rotate(torch.full_like(factor, angle)) @ scale(factor, factor)
    grid = F.affine_grid(transform.inverse()[:, :2].float(), board.shape, align_corners=False)
    plain = F.grid_sample(board, grid, padding_mode="reflection", align_corners=False)
    inner = (..., slice(6, 26), slice(6, 26))  # the mirrored border is no checkerboard
    assert warp(board, transform)[inner].std() < 0.1
    assert plain[inner].std() > 0.3
