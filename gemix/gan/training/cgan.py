"""Training of the CGAN baseline: one batch for the discriminator, one for the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.losses import functional as losses
from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.compile import compiled
from gemix.gan.training.state import TrainingState

GENERATOR_LOSSES = {
    "minimax": losses.minimax_generator_loss,
    "nonsaturating": losses.generator_loss,
}


class CganTrainer(BaseTrainer):
    """min_G max_D E[log D(x|y)] + E[log(1 - D(G(z|y)|y))], in alternating steps.

    As algorithm 1 of Goodfellow et al., "Generative adversarial nets", 2014, with k = 1; the
    labels y of generated images are drawn from those of the training images. With `cgan_loss`
    nonsaturating the generator maximizes E[log D(G(z|y)|y)] instead (section 3 there). Nothing is
    regularized, augmented or averaged: the generator that is sampled is the one that is trained.
    """

    remedy = "a lower gan.cgan_lr, gan.cgan_loss=nonsaturating or gan.precision=float32"

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        super().__init__(state, data, config, workers)
        if config.compile:
            self.discriminator_loss = compiled(self.discriminator_loss, self.device)
            self.generator_loss = compiled(self.generator_loss, self.device)

    def run_phases(self) -> dict[str, Tensor]:
        """Trains both networks on one batch; returns the losses, by name."""
        values = {"loss_d": self.train_discriminator(), "loss_g": self.train_generator()}
        self.state.update_ema(self.config.batch, ema_kimg=0, ema_rampup=None)
        return values

    def train_discriminator(self) -> Tensor:
        """Tells real from generated images, each by its label."""
        with self.discriminator_update:
            loss = self.discriminator_loss(self.step, *self.real_batch())
            loss.backward()
        return loss.detach().clone()

    def train_generator(self) -> Tensor:
        """Moves the generator to where the discriminator believes its images."""
        with self.generator_update:
            loss = self.generator_loss(self.step)
            loss.backward()
        return loss.detach().clone()

    def discriminator_loss(self, step: Tensor, reals: Tensor, real_label: Tensor) -> Tensor:
        """Of the step's images, beside real ones; pure, as compiling wants it."""
        with torch.no_grad():
            z, label = self.latents(Stream.D_LATENT, step)
            fakes = self.state.generator(z, label, dtype=self.dtype)
        images, labels = torch.cat([reals, fakes]), torch.cat([real_label, label])
        logits = self.state.discriminator(images, labels, self.dtype)
        return losses.discriminator_loss(*logits.chunk(2))

    def generator_loss(self, step: Tensor) -> Tensor:
        """Of the step's images; pure, as compiling wants it."""
        z, label = self.latents(Stream.G_LATENT, step)
        images = self.state.generator(z, label, dtype=self.dtype)
        logits = self.state.discriminator(images, label, self.dtype)
        return GENERATOR_LOSSES[self.config.cgan_loss](logits)

    def latents(self, stream: Stream, step: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [n, z_dim] and training labels [n, K] for this worker's share of the batch."""
        size = self.state.generator.architecture.z_dim
        uniform, z = draw(self.config.seed, stream, self.places, step, uniforms=1, normals=size)
        return z, self.data.random_labels(uniform[:, 0])
