"""Training of StyleGAN2-ADA: one method for each phase of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gemix.core.distributed import Workers
from gemix.gan.augment.augment_set import AugmentSet
from gemix.gan.augment.augmenter import AUGMENT_SETS, Augmenter
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.losses import functional as losses
from gemix.gan.losses.stylegan2_loss import StyleGAN2Loss
from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.latents import LatentSource
from gemix.gan.training.state import TrainingState


class StyleGAN2ADATrainer(BaseTrainer):
    """One step of StyleGAN2-ADA, phase by phase."""

    remedy = "a lower gan.g_lr and gan.d_lr, a higher gan.r1_gamma or gan.precision=float32"

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        super().__init__(state, data, config, workers)
        self.augment = Augmenter(AUGMENT_SETS[config.augment], config.seed, self.places)
        path_places = local_indices(
            workers, config.batch, config.sample_group, config.resolved_pl_batch_shrink
        )
        self.passes = StyleGAN2Loss(
            state.generator,
            state.discriminator,
            LatentSource(
                state.generator,
                data,
                config,
                self.places,
                torch.tensor(path_places, device=self.device),
            ),
            self.augment,
            self.dtype,
            compile_on=self.device if config.compile else None,
        )
        self.r1_gamma = config.resolved_r1_gamma(data.resolution)

    def frozen(self) -> Sequence[nn.Parameter]:
        """Those of `freeze_d`."""
        return self.state.discriminator.nearest_to_image(self.config.freeze_d)

    def run_phases(self) -> dict[str, Tensor]:
        """Trains both networks on one batch; returns the losses, by name."""
        state, config, step = self.state, self.config, self.state.step
        values = {"loss_g": self.train_generator()}
        if config.pl_weight and step % config.g_reg_interval == 0:
            values["path_length"] = self.regularize_generator()
        values["loss_d"] = self.train_discriminator()
        if self.r1_gamma and step % config.d_reg_interval == 0:
            values["r1_penalty"] = self.regularize_discriminator()
        state.update_ema(config.batch, config.resolved_ema_kimg, config.ema_rampup)
        if config.augment_p is None and (step + 1) % config.ada_interval == 0 and state.sign_count:
            values["r_t"] = self.adapt_augmentation()
        return values

    def train_generator(self) -> Tensor:
        """Moves the generator to where the discriminator believes its images."""
        with self.generator_update as update:
            loss, w_mean = self.passes.generator_loss(self.step, self.augment_p)
            loss.backward()
        if update.applied:
            self.state.generator.mapping.update_w_avg(self.workers.all_reduce_mean(w_mean))
        return loss.detach().clone()

    def regularize_generator(self) -> Tensor:
        """Evens out the path lengths; returns their mean."""
        config, state = self.config, self.state
        with self.generator_update as update:
            lengths = self.passes.path_lengths(self.step)
            mean = self.workers.all_reduce_mean(lengths.mean())
            pl_mean = state.pl_mean.lerp(mean.detach(), config.pl_decay)
            loss = losses.path_length_penalty(lengths, pl_mean) * config.pl_weight
            # applied once in g_reg_interval steps, with the weight of all of them
            (loss * config.g_reg_interval).backward()
        if update.applied:
            state.pl_mean = pl_mean
        return mean.detach()

    def train_discriminator(self) -> Tensor:
        """Tells real from generated images."""
        with self.discriminator_update as update:
            loss, real_logits = self.passes.discriminator_loss(
                self.step, self.augment_p, *self.real_batch()
            )
            loss.backward()
        if update.applied:
            # of all workers at once: the state that one of them saves is that of all
            self.state.sign_sum += self.workers.all_reduce_mean(real_logits.sign().sum())
            self.state.sign_count += len(real_logits)
        return loss.detach().clone()

    def regularize_discriminator(self) -> Tensor:
        """Keeps the discriminator flat around the real images; returns the mean R1 penalty."""
        with self.discriminator_update:
            penalties = self.passes.r1_penalties(self.step, self.augment_p, *self.real_batch())
            penalty = penalties.mean()
            (penalty * (self.r1_gamma / 2) * self.config.d_reg_interval).backward()
        return penalty.detach()

    def adapt_augmentation(self) -> Tensor:
        """Steers p so that r_t = E[sign D(real)] meets its target (section 3.1); returns r_t."""
        state, config = self.state, self.config
        r_t = state.sign_sum / state.sign_count
        if self.augments:
            change = config.batch * config.ada_interval / (config.ada_kimg * 1000)
            towards = float(torch.sign(r_t - config.ada_target))
            state.augment_p = min(max(state.augment_p + towards * change, 0.0), config.ada_p_max)
        state.sign_sum, state.sign_count = torch.zeros_like(state.sign_sum), 0
        return r_t

    @property
    def augments(self) -> bool:
        """Whether there is anything that p is the probability of."""
        return self.augment.strength != AugmentSet()

    @property
    def augment_p(self) -> Tensor | None:
        """p as the passes take it: None where nothing is augmented."""
        if self.state.augment_p == 0 or not self.augments:
            return None
        return torch.full((1,), self.state.augment_p, dtype=torch.float64, device=self.device)
