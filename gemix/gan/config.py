"""Settings of the StyleGAN2-ADA engine, under the names of its papers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.schema import Config, Count, Fraction, NonNegative, Positive, Problem, Range

LearningRate = Annotated[float, Range(low=1e-8, high=1.0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanConfig(Config):
    """Architecture, losses, augmentation and schedule.

    Lengths of training are in kimg: thousands of real images shown to the discriminator. A field
    that may be null is then set as the StyleGAN2-ADA paper does (:mod:`gemix.gan.training`).

    `augment` names a set of augmentations (:mod:`gemix.gan.augment`); `ada_target` is the value
    of r_t that the probability p is steered to, `ada_kimg` how long p takes from 0 to 1 at most,
    and `ada_p_max` its bound, beyond which augmentations leak into the images (Karras et al.,
    "Training generative adversarial networks with limited data", 2020, sections 2.2 and 3.1);
    `augment_p` fixes p instead. `precision` float32 is the reference; bfloat16 runs the
    convolutions in bfloat16 with float32 weights; auto takes bfloat16 where the hardware is fast
    at it.
    """

    kimg: NonNegative = 5000.0
    batch: Positive = 32
    seed: Count = 0

    z_dim: Positive = 512
    w_dim: Positive = 512
    mapping_layers: Positive = 8
    channel_base: Positive = 16384
    channel_max: Positive = 512
    mbstd_group_size: Positive = 4

    g_lr: LearningRate = 0.0025
    d_lr: LearningRate = 0.0025
    r1_gamma: NonNegative | None = None
    d_reg_interval: Positive = 16
    pl_weight: NonNegative = 2.0
    pl_decay: Fraction = 0.01
    pl_batch_shrink: Positive = 2
    g_reg_interval: Positive = 4
    style_mixing_prob: Fraction = 0.9
    ema_kimg: NonNegative | None = None
    ema_rampup: NonNegative | None = 0.05

    augment: Literal["none", "ct", "b", "g", "c", "bg", "bgc"] = "ct"
    augment_p: Fraction | None = None
    ada_target: Fraction = 0.6
    ada_interval: Positive = 4
    ada_kimg: Annotated[float, Range(low=0.001)] = 500.0
    ada_p_max: Fraction = 0.8

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    snapshot_kimg: Annotated[float, Range(low=0.001)] = 200.0
    keep_checkpoints: Positive = 2

    def conflicts(self) -> list[Problem]:
        """Minibatch-stddev groups divide the batch."""
        group = min(self.mbstd_group_size, self.batch)
        if self.batch % group == 0:
            return []
        return [Problem("batch", self.batch, f"a multiple of mbstd_group_size ({group})")]

    def resolved_r1_gamma(self, resolution: int) -> float:
        """R1's weight; by default 0.0002 resolution^2 / batch (StyleGAN2-ADA, appendix C)."""
        return 0.0002 * resolution**2 / self.batch if self.r1_gamma is None else self.r1_gamma

    @property
    def resolved_ema_kimg(self) -> float:
        """Half-life of the generator's average; by default batch * 10 / 32 kimg."""
        return self.batch * 10 / 32 if self.ema_kimg is None else self.ema_kimg
