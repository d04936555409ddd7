"""Settings of the GAN engine, under the names of the papers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args

from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Fraction,
    Location,
    OnlyFor,
    Operational,
    Range,
    Seed,
)
from gemix.gan.models.architecture import Architecture
from gemix.gan.registry import LOSSES, METHODS

NoiseMode = Literal["random", "const", "none"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

STYLEGAN2 = OnlyFor("stylegan2-ada")
CGAN = OnlyFor("cgan")

LearningRate = Annotated[float, Range(1e-8, 1.0)]
Kimg = Annotated[float, Range(0, 1e6)]
Interval = Annotated[int, Range(1, 100_000)]
Width = Annotated[int, Range(1, 8192)]
Weight = Annotated[float, Range(0, 1e6)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanConfig(Config):
    """Architecture, losses, augmentation and schedule of a GAN training.

    Lengths of training are in kimg: thousands of real images shown to the discriminator. Null means
    the value of the StyleGAN2-ADA paper (Karras et al., "Training generative adversarial networks
    with limited data", NeurIPS 2020, appendix C). A setting that another method reads is refused.
    """

    method: Annotated[
        Literal[tuple(METHODS)],  # type: ignore[valid-type]
        "StyleGAN2-ADA, or the baseline: a label-conditional DCGAN.",
    ] = "stylegan2-ada"
    cgan_loss: Annotated[
        Literal[tuple(LOSSES)],  # type: ignore[valid-type]
        CGAN,
        "Loss of the CGAN's generator; minimax is that of its paper.",
    ] = "minimax"
    cgan_lr: Annotated[LearningRate, CGAN, "Learning rate of both networks of the CGAN."] = 0.0002

    kimg: Annotated[Kimg, "Length of the training, in kimg."] = 5000.0
    pretrain_kimg: Annotated[
        Kimg, "Length of an unconditional training whose weights the conditional one starts from."
    ] = 0.0
    init_from: Annotated[
        str | None,
        Location(),
        "Networks that the training starts from: zoo:<name>, or a directory of gemix train-gan, "
        "export-gan or import-stylegan.",
    ] = None
    batch: Annotated[int, Range(1, 65536), "Images in one step, over all workers."] = 32
    accumulate: Annotated[
        int,
        Range(1, 65536),
        Operational(),
        "Backward passes in which a worker takes its share of a batch: more need less memory.",
    ] = 1
    seed: Annotated[Seed, "Seed of weights, image order, latents and augmentation."] = 0

    z_dim: Annotated[Width, "Dimensions of the latent z."] = 512
    w_dim: Annotated[Width, STYLEGAN2, "Dimensions of the style w."] = 512
    mapping_layers: Annotated[
        int, Range(1, 64), STYLEGAN2, "Layers of the mapping network from z and label to w."
    ] = 8
    channel_base: Annotated[
        int | None,
        Range(16, 2**20),
        "Feature maps times resolution; null: 16384 below 512 x 512, 32768 from there on.",
    ] = None
    channel_max: Annotated[Width, "Most feature maps of a layer."] = 512
    mbstd_group_size: Annotated[
        int, Range(1, 65536), STYLEGAN2, "Images in a group of the minibatch standard deviation."
    ] = 4

    g_lr: Annotated[
        LearningRate | None,
        STYLEGAN2,
        "Generator's learning rate; null: 0.0025, from 1024 x 1024 on 0.002.",
    ] = None
    d_lr: Annotated[
        LearningRate | None,
        STYLEGAN2,
        "Discriminator's learning rate; null: 0.0025, from 1024 x 1024 on 0.002.",
    ] = None
    r1_gamma: Annotated[
        Weight | None,
        STYLEGAN2,
        "Weight gamma of the R1 penalty; null: 0.0002 resolution^2 / batch; 0: none.",
    ] = None
    d_reg_interval: Annotated[Interval, STYLEGAN2, "Steps from one R1 penalty to the next."] = 16
    pl_weight: Annotated[Weight, STYLEGAN2, "Weight of the path length penalty; 0: none."] = 2.0
    pl_decay: Annotated[
        Fraction, STYLEGAN2, "Share of a new path length in the running mean of path lengths."
    ] = 0.01
    pl_batch_shrink: Annotated[
        int, Range(1, 65536), STYLEGAN2, "Path lengths are measured on batch / this many images."
    ] = 2
    g_reg_interval: Annotated[
        Interval, STYLEGAN2, "Steps from one path length penalty to the next."
    ] = 4
    style_mixing_prob: Annotated[
        Fraction, STYLEGAN2, "Probability that an image mixes the styles of two latents."
    ] = 0.9
    ema_kimg: Annotated[
        Kimg | None,
        STYLEGAN2,
        "Half-life of the moving average of the generator, in kimg; null: batch * 10 / 32.",
    ] = None
    ema_rampup: Annotated[
        Weight | None,
        STYLEGAN2,
        "Bound of that half-life as a share of the images shown so far; null: no bound.",
    ] = 0.05

    label_mixing: Annotated[
        Fraction,
        STYLEGAN2,
        "Probability that a generated image is asked for a mixture of two classes in training.",
    ] = 0.0
    classifier_weight: Annotated[
        Weight,
        STYLEGAN2,
        "Weight of an auxiliary classifier's cross-entropy in both losses (Odena et al. 2017); "
        "0: none.",
    ] = 0.0

    augment: Annotated[
        Literal["none", "ct", "b", "g", "c", "bg", "bgc"],
        STYLEGAN2,
        "Set of augmentations: those of the paper (b blits, g geometry, c colour), or for CT.",
    ] = "ct"
    augment_p: Annotated[
        Fraction | None, STYLEGAN2, "Fixed probability p of an augmentation; null: ADA steers it."
    ] = None
    ada_target: Annotated[Fraction, STYLEGAN2, "Value of r_t that ADA steers p towards."] = 0.6
    ada_interval: Annotated[Interval, STYLEGAN2, "Steps from one adjustment of p to the next."] = 4
    ada_kimg: Annotated[
        float, Range(0.001, 1e6), STYLEGAN2, "Least time in which p goes from 0 to 1, in kimg."
    ] = 500.0
    ada_p_max: Annotated[
        Fraction, STYLEGAN2, "Bound of p; above it augmentations leak into the images."
    ] = 0.8

    freeze_d: Annotated[
        int,
        Range(0, 64),
        STYLEGAN2,
        'Discriminator layers, from the image on, that stay as loaded (Mo et al., "Freeze the '
        'discriminator", 2020).',
    ] = 0
    max_skipped_steps: Annotated[
        int,
        Range(1, 1_000_000),
        "Steps with gradients that are not finite, in a row, before going back to a checkpoint.",
    ] = 8
    precision: Annotated[
        Precision,
        "Precision of convolutions, weights are float32; auto: bfloat16 where hardware is fast; "
        "tf32: rounded products on GPUs.",
    ] = "auto"
    allreduce_precision: Annotated[
        Literal["float32", "bfloat16"],
        "Precision of the gradients that workers exchange; bfloat16 halves the messages.",
    ] = "float32"
    cuda_graphs: Annotated[
        bool, Operational(), "Whether GPUs replay each phase as CUDA graphs, captured once."
    ] = True
    compile: Annotated[
        bool, Operational(), "Whether to run each phase as one graph of torch.compile instead."
    ] = False
    data_loading: Annotated[
        Literal["auto", "memory", "stream"],
        Operational(),
        "Images in memory (the device's, if any) or streamed; auto: by data_memory_gb.",
    ] = "auto"
    data_memory_gb: Annotated[
        float | None,
        Range(0, 1e6),
        Operational(),
        "Larger training sets are streamed, in GB; null: a quarter of the memory there is.",
    ] = None
    shuffle_gb: Annotated[
        float, Range(0, 1e6), "Images are shuffled within windows of this size, in GB."
    ] = 2.0
    class_balance: Annotated[
        Fraction,
        "Exponent g of weights n^-g of classes of n images: 0 shows classes as in the data, 1 "
        "equally often.",
    ] = 0.0
    snapshot_kimg: Annotated[
        float, Range(0.001, 1e6), Operational(), "Distance of checkpoints, in kimg."
    ] = 200.0
    keep_checkpoints: Annotated[
        int, Range(1, 1_000_000), Operational(), "Number of checkpoints to keep, the newest."
    ] = 2

    def validate(self) -> list[ConfigIssue]:
        """Require a batch of whole groups of the minibatch standard deviation."""
        group = min(self.sample_group, self.batch)
        if self.batch % group == 0:
            return []
        return [ConfigIssue("batch", self.batch, f"a multiple of mbstd_group_size ({group})")]

    @property
    def steps(self) -> int:
        """Return the number of batches that show `kimg` thousand real images."""
        return int(-(-self.kimg * 1000 // self.batch))

    def kimg_at(self, step: int) -> float:
        """Return the thousands of real images shown in `step` steps."""
        return step * self.batch / 1000

    @property
    def adversarial_loss(self) -> str:
        """Return the name of the generator's adversarial loss, for logs and reports."""
        return self.cgan_loss if self.method == "cgan" else "nonsaturating"

    @property
    def summary(self) -> str:
        """Return method, losses, augmentation and label mixing in words."""
        if self.method == "cgan":
            return f"CGAN, {self.adversarial_loss} loss"
        words = f"StyleGAN2-ADA, {self.adversarial_loss} loss, augmentation {self.augment}"
        if self.classifier_weight:
            words += f", auxiliary classifier {self.classifier_weight:g}"
        if self.label_mixing:
            words += f", label mixing {self.label_mixing:g}"
        return words

    @property
    def sample_group(self) -> int:
        """Return how many samples of a batch depend on each other; one worker holds them."""
        return 1 if self.method == "cgan" else self.mbstd_group_size

    @property
    def resolved_pl_batch_shrink(self) -> int:
        """Return `pl_batch_shrink`, or 1 where no path length is measured."""
        is_measured = self.method != "cgan" and self.pl_weight
        return self.pl_batch_shrink if is_measured else 1

    def architecture(self, *, resolution: int, img_channels: int, label_dim: int) -> Architecture:
        """Return the networks for images of these sizes and so many classes."""
        return Architecture(
            resolution=resolution,
            img_channels=img_channels,
            label_dim=label_dim,
            z_dim=self.z_dim,
            w_dim=self.w_dim,
            mapping_layers=self.mapping_layers,
            d_mapping_layers=self.mapping_layers,
            channel_base=self.resolved_channel_base(resolution),
            channel_max=self.channel_max,
            mbstd_group_size=self.mbstd_group_size,
            auxiliary_classifier=bool(self.classifier_weight and label_dim),
        )

    def resolved_channel_base(self, resolution: int) -> int:
        """Return `channel_base`; by default half as many below 512 x 512 (appendix C)."""
        return self.channel_base or (32768 if resolution >= 512 else 16384)

    def resolved_lr(self, lr: float | None, resolution: int) -> float:
        """Return `lr` (`g_lr` or `d_lr`), by default that of appendix C."""
        return lr or (0.002 if resolution >= 1024 else 0.0025)

    def resolved_r1_gamma(self, resolution: int) -> float:
        """Return `r1_gamma`; by default 0.0002 resolution^2 / batch (appendix C)."""
        return 0.0002 * resolution**2 / self.batch if self.r1_gamma is None else self.r1_gamma

    @property
    def resolved_ema_kimg(self) -> float:
        """Return `ema_kimg`; by default batch * 10 / 32."""
        return self.batch * 10 / 32 if self.ema_kimg is None else self.ema_kimg


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How a generator is sampled.

    A CGAN has neither styles nor noise: its latent is truncated towards 0, and `noise_mode` does
    nothing.
    """

    truncation_psi: Annotated[
        Fraction, "Truncation of styles towards their mean: 1 none, 0 entirely."
    ] = 1.0
    noise_mode: Annotated[
        NoiseMode, "Noise inputs: of the image's own seed, as stored with the weights, or none."
    ] = "random"
    batch: Annotated[
        int,
        Range(1, 65536),
        Operational(),
        "Images generated at once in float32; the images do not change. Other precisions: 32.",
    ] = 32
    precision: Annotated[
        Precision,
        "Precision of convolutions; auto: bfloat16 where hardware is fast, some grey levels apart.",
    ] = "float32"
