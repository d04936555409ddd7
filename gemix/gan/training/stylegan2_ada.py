"""Training of StyleGAN2-ADA: one method for each phase of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gemix.core.distributed import Workers
from gemix.gan.acceleration.accelerate import accelerator
from gemix.gan.augment.augment_set import AugmentSet
from gemix.gan.augment.augmenter import AUGMENT_SETS, Augmenter
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import BatchPart
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.losses.regularizers import path_length_penalty
from gemix.gan.losses.stylegan2_loss import StyleGAN2Loss
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from gemix.gan.training.base_trainer import AdamSettings, BaseTrainer
from gemix.gan.training.latents import LatentSampler
from gemix.gan.training.state import TrainingState

ADAM_BETAS = (0.0, 0.99)


class StyleGAN2ADATrainer(BaseTrainer):
    """StyleGAN2 (Karras et al. 2020) with adaptive discriminator augmentation.

    Where it differs from the public implementation is in docs/gan.md.
    """

    generator = Generator
    discriminator = Discriminator
    learning_rates = "gan.g_lr and gan.d_lr"
    hint = "a lower gan.g_lr and gan.d_lr, a higher gan.r1_gamma or gan.precision=float32"

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        super().__init__(state, data, config, workers)
        self.r1_gamma = config.resolved_r1_gamma(data.resolution)
        self.augment = Augmenter(AUGMENT_SETS[config.augment], config.seed)
        self.loss = StyleGAN2Loss(
            state.generator,
            state.discriminator,
            LatentSampler(state.generator, data, config),
            self.augment,
            self.adversarial_loss,
            config.classifier_weight,
            self.dtype,
            accelerate=accelerator(config, self.device),
        )

    @staticmethod
    def adam(config: GanConfig, resolution: int) -> tuple[AdamSettings, AdamSettings]:
        """Return settings that make up for lazy regularization (Karras et al. 2020, appendix B).

        A network whose regularizer takes one step for each k of the loss takes k + 1 steps in all,
        so its learning rate and the exponents of its betas are multiplied by k / (k + 1). A network
        without a regularizer (`pl_weight` or `r1_gamma` 0) keeps both as they are.
        """

        def lazy(lr: float | None, interval: int, weight: float) -> AdamSettings:
            ratio = interval / (interval + 1) if weight else 1.0
            beta1, beta2 = ADAM_BETAS
            return AdamSettings(
                config.resolved_lr(lr, resolution) * ratio, (beta1**ratio, beta2**ratio)
            )

        r1_gamma = config.resolved_r1_gamma(resolution)
        return (
            lazy(config.g_lr, config.g_reg_interval, config.pl_weight),
            lazy(config.d_lr, config.d_reg_interval, r1_gamma),
        )

    def frozen_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters of the `freeze_d` layers nearest to the image."""
        return self.state.discriminator.nearest_to_image(self.config.freeze_d)

    @staticmethod
    def phases(config: GanConfig) -> dict[str, int]:
        """Return the phases; the regularizers are lazy (Karras et al. 2020, section 3.1)."""
        return {
            "generator": 1,
            "path length": config.g_reg_interval,
            "discriminator": 1,
            "R1": config.d_reg_interval,
        }

    def run_phases(self) -> dict[str, Tensor]:
        """Train both networks on one batch; return the losses by name."""
        config = self.config
        losses = {"loss_g": self.train_generator()}
        if config.pl_weight and self.is_due(config.g_reg_interval):
            losses["path_length"] = self.regularize_generator()
        losses["loss_d"] = self.train_discriminator()
        if self.r1_gamma and self.is_due(config.d_reg_interval):
            losses["r1_penalty"] = self.regularize_discriminator()
        self.state.update_ema(config.batch, config.resolved_ema_kimg, config.ema_rampup)
        if self.should_adapt_augmentation():
            losses["r_t"] = self.adapt_augmentation()
        return losses

    def is_due(self, interval: int) -> bool:
        """Return whether a lazy regularizer runs in this step: the first of every `interval`."""
        return self.state.step % interval == 0

    def train_generator(self) -> Tensor:
        """Train the generator to make images that the discriminator takes for real."""
        losses, w_means = [], []
        with self.generator_step("generator") as update:
            for part in self.parts:
                loss, w_mean = self.loss.generator_loss(self.step, part.batch_index, self.augment_p)
                update.backward(loss)
                losses.append(loss.detach().clone())
                w_means.append(w_mean.clone())
        w_mean = self.workers.all_reduce_mean(torch.stack(w_means).mean(dim=0))
        self.state.generator.mapping.update_w_avg(w_mean, update.applied)
        return torch.stack(losses).mean()

    def regularize_generator(self) -> Tensor:
        """Penalize path lengths that differ from their running mean; return their mean."""
        config, state = self.config, self.state
        with self.generator_step("path length") as update:
            for lengths, batch_mean in self.path_lengths():
                penalty, pl_mean = path_length_penalty(
                    lengths, batch_mean, state.pl_mean, config.pl_decay
                )
                # runs once in g_reg_interval steps, with the weight of all of them
                update.backward(penalty * config.pl_weight * config.g_reg_interval)
        state.pl_mean = torch.where(update.applied, pl_mean, state.pl_mean)
        return batch_mean.detach()

    def path_lengths(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the path lengths of each part, and their mean over all parts and workers.

        The penalty of the first part needs that mean. With several parts, whose graphs do not fit
        into memory together, lengths are therefore computed twice.
        """

        def lengths(part: BatchPart) -> Tensor:
            return self.loss.path_lengths(self.step, part.path_batch_index)

        if len(self.parts) == 1:
            first = lengths(self.parts[0])
            yield first, self.workers.all_reduce_mean(first.mean())
            return
        means = torch.stack([lengths(part).detach().mean() for part in self.parts])
        batch_mean = self.workers.all_reduce_mean(means.mean())
        for part in self.parts:
            yield lengths(part), batch_mean

    def train_discriminator(self) -> Tensor:
        """Train the discriminator to tell real from generated images, each by its label."""
        losses, signs = [], []
        with self.discriminator_step("discriminator") as update:
            for part, reals, labels in self.real_parts():
                loss, real_logits = self.loss.discriminator_loss(
                    self.step, part.batch_index, self.augment_p, reals, labels
                )
                update.backward(loss)
                losses.append(loss.detach().clone())
                signs.append(real_logits.sign())
        signs = torch.cat(signs)
        # averaged over the workers: the state that one of them saves is that of all
        sign_sum = self.workers.all_reduce_mean(signs.sum())
        self.state.sign_sum += torch.where(update.applied, sign_sum, 0.0)
        self.state.sign_count += update.applied * len(signs)
        return torch.stack(losses).mean()

    def regularize_discriminator(self) -> Tensor:
        """Penalize the discriminator's gradient at real images (R1); return the mean penalty."""
        means = []
        with self.discriminator_step("R1") as update:
            for part, reals, labels in self.real_parts():
                penalties = self.loss.r1_penalties(
                    self.step, part.batch_index, self.augment_p, reals, labels
                )
                penalty = penalties.mean()
                update.backward(penalty * (self.r1_gamma / 2) * self.config.d_reg_interval)
                means.append(penalty.detach().clone())
        return torch.stack(means).mean()

    def should_adapt_augmentation(self) -> bool:
        """Return whether p is adapted after this step: the last of every `ada_interval`."""
        is_due = (self.state.step + 1) % self.config.ada_interval == 0
        return self.config.augment_p is None and is_due

    def adapt_augmentation(self) -> Tensor:
        """Move p so that r_t = E[sign D(real)] approaches its target; return r_t.

        Karras et al., "Training generative adversarial networks with limited data", 2020,
        section 3.1.
        """
        state, config = self.state, self.config
        r_t = state.sign_sum / state.sign_count  # NaN, and p stays, where all steps were skipped
        if self.augments:
            change = config.batch * config.ada_interval / (config.ada_kimg * 1000)
            direction = torch.sign(r_t - config.ada_target).nan_to_num(0)
            moved = state.augment_p + direction.double() * change
            state.augment_p = moved.clamp(0.0, config.ada_p_max)
        state.sign_sum = torch.zeros_like(state.sign_sum)
        state.sign_count = torch.zeros_like(state.sign_count)
        return r_t

    @property
    def augments(self) -> bool:
        """Whether the set of augmentations has any."""
        return self.augment.strength != AugmentSet()

    @property
    def augment_p(self) -> Tensor | None:
        """p as the losses take it, float64 [1]: None where nothing is ever augmented."""
        if self.config.augment_p == 0 or not self.augments:
            return None
        return self.state.augment_p[None]
