"""The regularizers of StyleGAN2: R1 and path length.

Both differentiate a gradient. torch.func.grad takes it, since autograd.grad with create_graph does
not compile into one graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real_images: Tensor) -> Tensor:
    """Return the squared norm of the gradient of D at each real image: [N].

    Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9
    without its factor gamma / 2.

    Args:
        discriminator: maps images to logits [N, 1].
        real_images: [N, C, H, W].
    """
    gradient = torch.func.grad(lambda images: discriminator(images).sum())(real_images)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(synthesis: Callable[[Tensor], Tensor], ws: Tensor, noise: Tensor) -> Tensor:
    """Return the length of J_w^T y for each noise image y: [N].

    Karras et al. 2020, section 3.2. The norm is over w, root mean square over the styles.

    Args:
        synthesis: maps styles to images [N, C, H, W].
        ws: styles, [N, num_ws, w_dim].
        noise: y divided by sqrt(H W), [N, C, H, W].
    """
    gradient = torch.func.grad(lambda ws: (synthesis(ws) * noise).sum())(ws)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_noise(noise: Tensor) -> Tensor:
    """Scale standard normal noise [N, C, H, W] for :func:`path_lengths`."""
    return noise / math.sqrt(noise.shape[2] * noise.shape[3])


def path_length_penalty(
    lengths: Tensor, batch_mean: Tensor, running_mean: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    """Return the mean of (length - a)^2 and the new running mean a.

    Karras et al. 2020, equation 4 and appendix B: a is an exponential moving average of the
    lengths, updated by those of this batch before it is used. It is therefore a function of them,
    and the penalty is differentiated through it, as in the public implementation.

    Args:
        lengths: of this worker [n].
        batch_mean: of the lengths of all workers, scalar.
        running_mean: a before this batch, scalar.
        decay: weight of the batch in a.
    """
    batch_mean = batch_mean.detach()
    a = running_mean.lerp(batch_mean, decay)
    # d(length - a)^2 has the term -2 (length - a) da; its mean over the batch of all workers is
    # -2 (batch_mean - a) decay times the mean of the lengths' derivatives, which each worker adds
    # for its own lengths. The value of the term is zero.
    own_mean = lengths.mean()
    through_a = -2 * decay * (batch_mean - a) * (own_mean - own_mean.detach())
    return (lengths - a).square().mean() + through_a, a
