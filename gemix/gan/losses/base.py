"""The interface of adversarial losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor


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
