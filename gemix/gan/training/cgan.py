"""Training of the CGAN baseline: one batch for the discriminator, one for the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.core.distributed import Workers
from gemix.core.rng import Stream
from gemix.core.torch_rng import draw
from gemix.gan.acceleration.accelerate import accelerator
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.cgan import CganDiscriminator, CganGenerator
from gemix.gan.training.base_trainer import AdamSettings, BaseTrainer
from gemix.gan.training.state import TrainingState


class CganTrainer(BaseTrainer):
    """min_G max_D E[log D(x|y)] + E[log(1 - D(G(z|y)|y))], in alternating steps.

    As algorithm 1 of Goodfellow et al., "Generative adversarial nets", 2014, with k = 1; the
    labels y of generated images are drawn from those of the training images. With `cgan_loss`
    nonsaturating the generator maximizes E[log D(G(z|y)|y)] instead (section 3 there). Nothing is
    regularized, augmented or averaged: the generator that is sampled is the one that is trained.
    """

    generator = CganGenerator
    discriminator = CganDiscriminator
    learning_rates = "gan.cgan_lr"
    hint = "a lower gan.cgan_lr, gan.cgan_loss=nonsaturating or gan.precision=float32"

    def __init__(
        self, state: TrainingState, data: TrainingDataset, config: GanConfig, workers: Workers
    ):
        super().__init__(state, data, config, workers)
        accelerate = accelerator(config, self.device)
        self.discriminator_loss = accelerate(self.discriminator_loss, state.discriminator)
        self.generator_loss = accelerate(self.generator_loss, state.generator)

    @staticmethod
    def adam(config: GanConfig, resolution: int) -> tuple[AdamSettings, AdamSettings]:
        """Return DCGAN's settings: one rate for both networks, beta1 0.5.

        Radford et al. 2016, section 4.
        """
        settings = AdamSettings(config.cgan_lr, (0.5, 0.999))
        return settings, settings

    @staticmethod
    def phases(config: GanConfig) -> dict[str, int]:
        """Return both phases, which run in every step."""
        return {"discriminator": 1, "generator": 1}

    def run_phases(self) -> dict[str, Tensor]:
        """Train both networks on one batch; return the losses by name."""
        losses = {"loss_d": self.train_discriminator(), "loss_g": self.train_generator()}
        self.state.update_ema(self.config.batch, ema_kimg=0, ema_rampup=None)
        return losses

    def train_discriminator(self) -> Tensor:
        """Train the discriminator to tell real from generated images, each by its label."""
        losses = []
        with self.discriminator_step("discriminator") as update:
            for part, reals, labels in self.real_parts():
                loss = self.discriminator_loss(self.step, part.batch_index, reals, labels)
                update.backward(loss)
                losses.append(loss.detach().clone())
        return torch.stack(losses).mean()

    def train_generator(self) -> Tensor:
        """Train the generator to make images that the discriminator takes for real."""
        losses = []
        with self.generator_step("generator") as update:
            for part in self.parts:
                loss = self.generator_loss(self.step, part.batch_index)
                update.backward(loss)
                losses.append(loss.detach().clone())
        return torch.stack(losses).mean()

    def discriminator_loss(
        self, step: Tensor, batch_index: Tensor, reals: Tensor, real_label: Tensor
    ) -> Tensor:
        """Return the discriminator's loss on real and generated images."""
        with torch.no_grad():
            z, label = self.draw_latents(Stream.D_LATENT, step, batch_index)
            fakes = self.state.generator(z, label, dtype=self.dtype)
        images, labels = torch.cat([reals, fakes]), torch.cat([real_label, label])
        logits = self.state.discriminator(images, labels, self.dtype)
        return self.adversarial_loss.discriminator(*logits.chunk(2))

    def generator_loss(self, step: Tensor, batch_index: Tensor) -> Tensor:
        """Return the generator's loss."""
        z, label = self.draw_latents(Stream.G_LATENT, step, batch_index)
        images = self.state.generator(z, label, dtype=self.dtype)
        logits = self.state.discriminator(images, label, self.dtype)
        return self.adversarial_loss.generator(logits)

    def draw_latents(
        self, stream: Stream, step: Tensor, batch_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw latents [n, z_dim] and training labels [n, K] for samples of a batch."""
        z_dim = self.state.generator.architecture.z_dim
        uniform, z = draw(self.config.seed, stream, batch_index, step, uniforms=1, normals=z_dim)
        return z, self.data.random_labels(uniform[:, 0])
