"""The adversarial losses of Goodfellow et al., "Generative adversarial nets", 2014, on logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gemix.gan.losses.base import AdversarialLoss


def nonsaturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the mean of -log sigmoid(D(G(z))) (section 3 there); logits [N, 1]."""
    return F.softplus(-fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the mean of log(1 - sigmoid(D(G(z)))), the generator's part of equation 1 there.

    Never positive, and flat where the discriminator is sure; logits [N, 1].
    """
    return -F.softplus(fake_logits).mean()


def logistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the mean of -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))); logits [N, 1] each."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


NONSATURATING = AdversarialLoss(
    generator=nonsaturating_generator_loss, discriminator=logistic_discriminator_loss
)
MINIMAX = AdversarialLoss(
    generator=minimax_generator_loss, discriminator=logistic_discriminator_loss
)
