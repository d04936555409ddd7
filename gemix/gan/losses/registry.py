"""The adversarial losses by the name that `GanConfig.adversarial_loss` returns.

A new loss is its two functions, one entry here and its name in
:class:`gemix.gan.config.GanConfig`. Each must pass :func:`gemix.gan.testing.check_loss`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from gemix.gan.losses.adversarial import (
    logistic_discriminator_loss,
    minimax_generator_loss,
    nonsaturating_generator_loss,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """Losses of a pair of networks, to be minimized by each.

    Both are means over the samples, so that workers can share a batch.

    Attributes:
        generator: of the logits of generated images [N, 1].
        discriminator: of the logits of real and of generated images [N, 1].
    """

    generator: Callable[[Tensor], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]


ADVERSARIAL_LOSSES = {
    "nonsaturating": AdversarialLoss(
        generator=nonsaturating_generator_loss, discriminator=logistic_discriminator_loss
    ),
    "minimax": AdversarialLoss(
        generator=minimax_generator_loss, discriminator=logistic_discriminator_loss
    ),
}
