"""Sample a trained generator: each image is a function of its seed, label and the settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gemix.core.device import compute_dtype, default_device, float32_products
from gemix.core.errors import ConfigError
from gemix.core.rng import Stream, normal
from gemix.gan.config import SamplingConfig
from gemix.gan.models.base import ImageGenerator
from gemix.gan.training.latents import noise_numel, split_noise

# Rounding in bfloat16 and TF32 differs between kernels, which libraries choose by the shape of a
# batch; with one shape an image depends on its seed and label alone.
REDUCED_PRECISION_BATCH = 32


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """Draw latents float32 [N, z_dim], as the public StyleGAN2-ADA draws them for seeds.

    Args:
        seeds: from 0 to 2**32 - 1.
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float()


@torch.inference_mode()
def sample_images(
    generator: ImageGenerator,
    seeds: Sequence[int],
    labels: np.ndarray,
    config: SamplingConfig,
    device: torch.device | None = None,
) -> np.ndarray:
    """Generate the images of seeds and soft labels; the batch size does not change them.

    Args:
        seeds: N seeds; each gives the latent and, in noise mode `random`, the noise.
        labels: float32 [N, K], rows sum to 1 (:func:`gemix.labels.check_labels`).
        device: where to run; the default device where None.

    Returns:
        uint8 [N, C, H, W].

    Raises:
        ConfigError: if the labels have not one row a seed and one column a class of the generator,
            which without classes would ignore them.
    """
    expected = (len(seeds), generator.architecture.label_dim)
    if labels.shape != expected:
        raise ConfigError(
            f"labels of shape {list(labels.shape)} for {expected[0]} seeds and a generator of "
            f"{expected[1]} classes; give labels of shape {list(expected)}"
        )
    device = device or default_device()
    dtype = compute_dtype(config.precision, device)
    generator = generator.to(device)
    exact = dtype is torch.float32 and config.precision != "tf32"
    size = config.batch if exact else REDUCED_PRECISION_BATCH
    parts = []
    for start in range(0, len(seeds), size):
        batch = [int(seed) for seed in seeds[start : start + size]]
        label = torch.from_numpy(labels[start : start + size]).float()
        if not exact:  # a last batch is filled up
            missing = size - len(batch)
            batch += batch[-1:] * missing
            label = torch.cat([label, label[-1:].expand(missing, -1)])
        z = latents_of_seeds(batch, generator.architecture.z_dim).to(device)
        noise = {
            "random": lambda batch=batch: draw_noise_of_seeds(generator, batch, device),
            "const": generator.noise_const,
            "none": lambda: None,
        }[config.noise_mode]()
        with float32_products(tf32=config.precision == "tf32"):
            images = generator(
                z, label.to(device), noise, truncation_psi=config.truncation_psi, dtype=dtype
            )
        parts.append(to_uint8(images).cpu().numpy())
    return np.concatenate(parts)[: len(seeds)]


def draw_noise_of_seeds(
    generator: ImageGenerator, seeds: Sequence[int], device: torch.device
) -> list[torch.Tensor]:
    """Draw noise of every shape that the generator takes, a function of each image's seed."""
    shapes = generator.noise_shapes
    size = noise_numel(shapes)
    rows = [normal(seed, Stream.SYNTHESIS_NOISE, [0], (size,)) for seed in seeds]
    return split_noise(torch.from_numpy(np.concatenate(rows)).to(device), shapes)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Round images of about -1 to 1 to the nearest of 256 grey levels, uint8."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def label_path(classes: int, steps: int) -> np.ndarray:
    """Return soft labels on the straight line between each two classes.

    Returns:
        float32 [pairs, steps, K], for the pairs (0, 1), (0, 2), …, (1, 2), …
    """
    eye = np.eye(classes, dtype=np.float32)
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    pairs = [(a, b) for a in range(classes) for b in range(a + 1, classes)]
    return np.stack([(1 - share) * eye[a] + share * eye[b] for a, b in pairs])
