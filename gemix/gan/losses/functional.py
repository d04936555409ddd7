"""The losses: logistic and minimax; those of StyleGAN2's regularizers, R1 and path length."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss, mean of -log sigmoid(D(G(z))) (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of log(1 - sigmoid(D(G(z)))), the generator's part of Goodfellow et al. 2014,
    equation 1. Never positive, and flat where the discriminator is sure.
    """
    return -F.softplus(fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss, mean of -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Squared norm of the gradient of D at each real image: [N].

    Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9
    without its factor gamma / 2. `real_images` must require a gradient.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return squared_norms(gradient)


def squared_norms(gradient: Tensor) -> Tensor:
    """Squared norm of each image of a gradient [N, C, H, W]: [N]."""
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Length of J_w^T y for a noise image y: [N].

    Karras et al. 2020, section 3.2. `noise` is y divided by sqrt(H W); the norm is averaged over
    the styles of `ws` [N, num_ws, w_dim], of which `images` must be a function.
    """
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return style_norms(gradient)


def style_norms(gradient: Tensor) -> Tensor:
    """Norm over w of a gradient [N, num_ws, w_dim], averaged (in squares) over the styles: [N]."""
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_noise(noise: Tensor) -> Tensor:
    """Standard normal noise [N, C, H, W] as :func:`path_lengths` wants it."""
    return noise / math.sqrt(noise.shape[2] * noise.shape[3])


def path_length_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """Mean squared distance of the path lengths from their running mean (equation 4)."""
    return (lengths - mean).square().mean()
