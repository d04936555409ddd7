"""The loss of an auxiliary classifier, on logits.

Odena et al., "Conditional image synthesis with auxiliary classifier GANs", 2017. As in Kang et al.,
"Rebooting ACGAN", 2021, the classifier learns from real images alone: classes learned from
generated images would be those that the generator happens to make.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def classification_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean divergence KL(label || softmax(logits)): 0 where the two are equal.

    The cross-entropy less the entropy of the labels, which has no gradient, so that values of soft
    and hard labels compare.

    Args:
        class_logits: [N, K].
        labels: soft labels that sum to 1, [N, K].
    """
    return F.kl_div(F.log_softmax(class_logits, dim=1), labels, reduction="batchmean")
