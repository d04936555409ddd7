"""The attack with the discriminator, which shows why it is never shipped.

A discriminator is trained to tell training images from others, and remembers them: Hayes et al.,
"LOGAN: membership inference attacks against generative models", PoPETs 2019, the white-box attack.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gemix.core.device import default_device, float32_products
from gemix.core.errors import CheckpointError
from gemix.evaluation.privacy.membership import membership_auc
from gemix.gan.checkpoints.checkpoint import checkpoint_spec, checkpoint_weights, checkpoints
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.data.dataset import to_floats
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.training.registry import METHODS
from gemix.io.audit_record import Auc
from gemix.io.storage import Store
from gemix.steps.sets.audited_images import AuditInput

_BATCH = 64


def discriminator_attack(
    gan: Store, generator: str | None, found: AuditInput, *, seed: int
) -> Auc | None:
    """Score members and held-out images by the discriminator of the newest checkpoint.

    Args:
        gan: directory of a training.
        generator: checksum of the generator that made the set.

    Returns:
        None if the training is not that of the generator, has left no checkpoint, or has more
        classes than the real images.
    """
    network = load_discriminator(gan, generator)
    if network is None or found.members.soft_labels.shape[1] < network.architecture.label_dim:
        return None
    label_dim = network.architecture.label_dim
    members, held_out = (
        discriminator_logits(network, sample.images, rows.soft_labels[:, :label_dim])
        for rows, sample in (
            (found.members, found.member_sample),
            (found.held_out, found.held_out_sample),
        )
    )
    return membership_auc(
        members,
        held_out,
        found.member_sample.patients,
        found.held_out_sample.patients,
        seed=seed,
    )


def load_discriminator(gan: Store, generator: str | None) -> nn.Module | None:
    """Return the discriminator that a generator was trained with, of the newest checkpoint.

    Args:
        gan: directory of a training.
        generator: checksum of the generator.

    Returns:
        None if the training is not that of the generator, or has left no readable checkpoint.
    """
    names = checkpoints(gan)
    try:
        if generator is None or not names or load_generator(gan).checksum != generator:
            return None
        spec, _ = checkpoint_spec(gan, names[-1])
        network = METHODS[spec.config.method].discriminator(spec.architecture)
        network.load_state_dict(checkpoint_weights(gan, names[-1]).discriminator)
    except CheckpointError:
        return None  # the networks may be gone; the set is of use all the same
    return network.requires_grad_(False).eval().to(default_device())


@torch.inference_mode()
@float32_products()
def discriminator_logits(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the logit of each image with its label, float64 [N], whatever the batch.

    Args:
        images: uint8 [N, C, H, W].
        labels: float32 [N, K].
    """
    device, parts = default_device(), []
    for start in range(0, len(images), _BATCH):
        pixels = to_floats(torch.from_numpy(images[start : start + _BATCH]).to(device))
        theta: Tensor | None = torch.from_numpy(labels[start : start + _BATCH]).to(device)
        theta = theta if labels.shape[1] else None
        # the minibatch standard deviation would mix images
        apart = {"batches": len(pixels)} if isinstance(network, Discriminator) else {}
        parts.append(network(pixels, theta, **apart)[:, 0].double().cpu().numpy())
    return np.concatenate(parts)
