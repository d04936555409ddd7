"""Settings of the GAN engine, under the names of the papers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args

from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Range,
)

NoiseMode = Literal["random", "const", "none"]
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

LearningRate = Annotated[float, Range(low=1e-8, high=1.0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanConfig(Config):
    """Architecture, losses, augmentation and schedule.

    Lengths of training are in kimg: thousands of real images shown to the discriminator. A field
    that may be null is then set as the StyleGAN2-ADA paper does
    (:mod:`gemix.gan.training.stylegan2_ada`).

    `method` cgan is the baseline, a label-conditional DCGAN (:mod:`gemix.gan.models.cgan`).
    `cgan_loss` is its generator's loss, minimax as its paper has it, `cgan_lr` the learning rate of
    both its networks. Only it reads these two; of the others it reads `kimg`, `pretrain_kimg`,
    `init_from`, `batch`, `seed`, `z_dim`, `channel_base`, `channel_max` and everything from
    `max_skipped_steps` on. It has no mapping network, regularizers, augmentation or average of
    weights, and what is set for them does nothing to it. StyleGAN2-ADA reads all but `cgan_loss`
    and `cgan_lr`.

    `pretrain_kimg` is the length of an unconditional training before, from whose weights the
    conditional one starts. `init_from` is a directory that gemix train-gan or import-stylegan left,
    from whose networks the first stage starts (:mod:`gemix.gan.checkpoints.transfer`).

    `augment` names a set of augmentations (:mod:`gemix.gan.augment.augmenter`); `ada_target` is the
    value of r_t that the probability p is steered to, `ada_kimg` how long p takes from 0 to 1 at
    most, and `ada_p_max` its bound, beyond which augmentations leak into the images (Karras et al.,
    "Training generative adversarial networks with limited data", 2020, sections 2.2 and 3.1);
    `augment_p` fixes p instead. `precision` float32 is the reference; bfloat16 runs the
    convolutions in bfloat16 with float32 weights; auto takes bfloat16 where the hardware is fast at
    it. `compile` runs each phase as one compiled graph (:mod:`gemix.gan.training.compile`).
    `freeze_d` keeps the discriminator's layers nearest to the image, so many, as they were loaded
    (Mo et al., "Freeze the discriminator", 2020). After `max_skipped_steps` steps in a row whose
    gradients are not finite, training goes back to a checkpoint
    (:mod:`gemix.gan.training.divergence`).

    `data` says where the images are while training: in memory, on the device if it has its own, or
    streamed from the shards; auto streams if they take more than `data_memory_gb`, by default a
    quarter of what the device and the machine have. Neither changes the batches. Images are
    shuffled within windows of `shuffle_gb`, at least one shard each
    (:mod:`gemix.gan.data.shuffle_order`); a streaming training holds two windows, shared out among
    its workers.
    """

    method: Literal["stylegan2-ada", "cgan"] = "stylegan2-ada"
    cgan_loss: Literal["minimax", "nonsaturating"] = "minimax"
    cgan_lr: LearningRate = 0.0002

    kimg: NonNegative = 5000.0
    pretrain_kimg: NonNegative = 0.0
    init_from: str | None = None
    batch: Positive = 32
    seed: Count = 0

    z_dim: Positive = 512
    w_dim: Positive = 512
    mapping_layers: Positive = 8
    channel_base: Positive | None = None
    channel_max: Positive = 512
    mbstd_group_size: Positive = 4

    g_lr: LearningRate | None = None
    d_lr: LearningRate | None = None
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

    freeze_d: Count = 0
    max_skipped_steps: Positive = 8
    precision: Precision = "auto"
    compile: bool = False
    data: Literal["auto", "memory", "stream"] = "auto"
    data_memory_gb: NonNegative | None = None
    shuffle_gb: NonNegative = 2.0
    snapshot_kimg: Annotated[float, Range(low=0.001)] = 200.0
    keep_checkpoints: Positive = 2

    def validate(self) -> list[ConfigIssue]:
        """Minibatch-stddev groups divide the batch."""
        group = min(self.sample_group, self.batch)
        if self.batch % group == 0:
            return []
        return [ConfigIssue("batch", self.batch, f"a multiple of mbstd_group_size ({group})")]

    @property
    def steps(self) -> int:
        """Batches until `kimg` thousand real images were shown."""
        return int(-(-self.kimg * 1000 // self.batch))

    def kimg_at(self, step: int) -> float:
        """Thousands of real images shown in so many steps."""
        return step * self.batch / 1000

    @property
    def objective(self) -> str:
        """The adversarial loss of the generator, as logs and reports name it."""
        return self.cgan_loss if self.method == "cgan" else "nonsaturating"

    @property
    def summary(self) -> str:
        """The method and what tells its trainings apart, in words."""
        if self.method == "cgan":
            return f"CGAN, {self.objective} loss"
        return f"StyleGAN2-ADA, {self.objective} loss, augmentation {self.augment}"

    @property
    def sample_group(self) -> int:
        """How many samples of a batch depend on each other, so that one worker must hold them."""
        return 1 if self.method == "cgan" else self.mbstd_group_size

    @property
    def resolved_pl_batch_shrink(self) -> int:
        """`pl_batch_shrink`; 1 where no path length is measured."""
        is_measured = self.method != "cgan" and self.pl_weight
        return self.pl_batch_shrink if is_measured else 1

    def resolved_channel_base(self, resolution: int) -> int:
        """Feature maps times resolution; by default half as many below 512 x 512 (appendix C)."""
        return self.channel_base or (32768 if resolution >= 512 else 16384)

    def resolved_lr(self, lr: float | None, resolution: int) -> float:
        """`g_lr` or `d_lr`; by default less from 1024 x 1024 on (appendix C)."""
        return lr or (0.002 if resolution >= 1024 else 0.0025)

    def resolved_r1_gamma(self, resolution: int) -> float:
        """R1's weight; by default 0.0002 resolution^2 / batch (StyleGAN2-ADA, appendix C)."""
        return 0.0002 * resolution**2 / self.batch if self.r1_gamma is None else self.r1_gamma

    @property
    def resolved_ema_kimg(self) -> float:
        """Half-life of the generator's average; by default batch * 10 / 32 kimg."""
        return self.batch * 10 / 32 if self.ema_kimg is None else self.ema_kimg


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How a generator is sampled.

    `truncation_psi` pulls styles towards their mean: 1 not at all, 0 entirely. `noise_mode`:
    random noise of the image's own seed, the fixed noise stored with the weights, or none. A CGAN
    has neither styles nor noise: its latent is pulled towards 0, and the noise modes are alike.
    """

    truncation_psi: Fraction = 1.0
    noise_mode: NoiseMode = "random"
    batch: Positive = 32
