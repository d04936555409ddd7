"""Adaptive discriminator augmentation."""

from __future__ import annotations

import math

import pytest
import torch

from gemix.core.rng import Stream
from gemix.gan.augment.augment_set import AugmentSet
from gemix.gan.augment.augmenter import AUGMENT_SETS, Augmenter
from gemix.gan.augment.geometry import rotate, scale, translate, warp


def smooth_images(count: int = 2, size: int = 32, channels: int = 1) -> torch.Tensor:
    """Low-frequency images, which resampling must keep."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, channels, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def run(images, name, p, indices=None, step=0):
    batch_index = torch.tensor(indices if indices is not None else range(len(images)))
    p = torch.tensor([p], dtype=torch.float64)
    augment = Augmenter(AUGMENT_SETS[name], seed=1)
    return augment(images, Stream.AUGMENT_REAL, torch.tensor([step]), batch_index, p)


def test_the_identity_warp_keeps_the_image():
    images = smooth_images()
    moved = warp(images, torch.eye(3).expand(2, 3, 3))
    assert (moved - images).abs().max() < 0.02


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (rotate(torch.full((2,), math.pi / 2)), lambda x: torch.rot90(x, -1, (2, 3))),
        (scale(torch.full((2,), -1.0), torch.ones(2)), lambda x: x.flip(3)),
        (translate(torch.full((2,), 2 * 4 / 32), torch.zeros(2)), lambda x: x.roll(4, 3)),
    ],
    ids=["quarter turn", "flip", "four pixels to the right"],
)
def test_warps_move_the_image_as_named(transform, expected):
    images = smooth_images()
    moved = warp(images, transform)
    inner = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    assert (moved[inner] - expected(images)[inner]).abs().max() < 0.02


ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("transform", "least"),
    [
        (translate(0 * ONE, 0 * ONE), 0.99),
        (scale(-ONE, ONE), 0.99),
        (rotate(math.pi / 2 * ONE), 0.99),
        (rotate(-math.pi / 2 * ONE) @ scale(-ONE, ONE), 0.99),
        (rotate(math.pi * ONE), 0.99),
        (translate(2 * 3 / 64 * ONE, -2 * 5 / 64 * ONE), 0.99),
        (translate(2 * 0.5 / 64 * ONE, 0 * ONE), 0.95),
        # a quarter of a pixel is half an upsampled one, where bilinear sampling loses most
        (translate(2 * 0.25 / 64 * ONE, 0 * ONE), 0.86),
        (rotate(math.radians(3) * ONE), 0.89),
    ],
    ids=["none", "flip", "quarter", "transpose", "half", "pixels", "0.5 px", "0.25 px", "3 deg"],
)
def test_fine_waves_keep_their_amplitude_and_place(transform, least):
    """Complex gain at 20 cycles in 64 pixels: 1 is a perfect warp, and 0 none at all."""
    line = (torch.arange(64, dtype=torch.float64) + 0.5) / 32 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)])
    source = torch.einsum("ij,jhw->ihw", transform[0].inverse(), here)
    for axis in (0, 1):
        waves = torch.polar(torch.ones_like(x), 20 * math.pi * here[axis])
        moved = torch.complex(*warp(torch.stack([waves.real, waves.imag])[None], transform)[0])
        gain = moved * torch.polar(torch.ones_like(x), -20 * math.pi * source[axis])
        gain = gain[16:48, 16:48].mean()
        assert gain.real > least and abs(gain.imag) < 0.02


def test_beyond_the_border_the_image_is_mirrored_about_the_border_pixels():
    images = smooth_images()
    for pixels in (4, -7):
        moved = warp(images, translate(torch.full((2,), 2 * pixels / 32), torch.zeros(2)))
        padded = torch.nn.functional.pad(images, (8, 8, 0, 0), mode="reflect")
        expected = padded[..., 8 - pixels : 40 - pixels]
        # an edge pixel that stood twice would make an error of up to 0.8
        assert (moved - expected)[:, :, 8:24].abs().max() < 0.1


def test_blitting_moves_by_whole_pixels():
    augment = Augmenter(AugmentSet(xint=0.125), seed=1)
    always, step = torch.ones(1, dtype=torch.float64), torch.tensor([0])
    drawn = augment.draw(Stream.AUGMENT_REAL, step, torch.arange(256), always, side=32)
    pixels = drawn.transform[:, :2, 2] * 16
    torch.testing.assert_close(pixels, pixels.round())
    assert set(pixels.round().flatten().tolist()) == set(range(-4, 5))


@pytest.mark.parametrize("name", sorted(set(AUGMENT_SETS) - {"none"}))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_augmented_alike_in_any_batch(name, channels):
    images = smooth_images(4, channels=channels)
    together = run(images, name, 0.9)
    alone = torch.cat([run(images[i : i + 1], name, 0.9, [i]) for i in range(4)])
    assert together.shape == images.shape
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together - images).abs().max() > 0.05
    assert not torch.equal(together, run(images, name, 0.9, step=1))


def test_p_zero_changes_nothing():
    images = smooth_images()
    assert torch.equal(run(images, "bgc", 0.0), images)


def test_p_is_the_share_of_augmented_samples():
    images = torch.zeros(400, 1, 16, 16)
    brightened = run(images, "c", 0.25)
    changed = (brightened.flatten(1).abs().amax(dim=1) > 0).float().mean()
    assert 0.18 < changed < 0.32


def test_ct_keeps_the_heart_on_its_side_and_the_patient_supine():
    ct = AUGMENT_SETS["ct"]
    assert ct.xflip == ct.rotate90 == ct.lumaflip == 0
    assert ct.rotate <= 0.06


def test_the_gradient_of_the_gradient_is_right():
    torch.manual_seed(0)
    images = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    angle, wide, high = torch.tensor([[0.3], [1.1], [0.9]], dtype=torch.float64)
    transform = rotate(angle) @ scale(wide, high)
    assert torch.autograd.gradgradcheck(
        lambda x: warp(x, transform).square(), images, nondet_tol=1e-9
    )
