"""The passes of StyleGAN2-ADA's phases through both networks, from what is drawn to the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.core.rng import Stream
from gemix.gan.augment.augmenter import Augmenter
from gemix.gan.losses import functional as losses
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from gemix.gan.training.compile import compiled
from gemix.gan.training.latents import LatentSource, styles


class StyleGAN2Loss:
    """One function a phase, of the networks' weights and of its arguments alone.

    What is random in it is a function of the step. The functions tell other workers nothing and
    change nothing, so each compiles as a whole, draws and backward pass included. Inside a
    compiled graph a gradient penalty is a torch.func.grad, as autograd.grad with create_graph does
    not compile; outside, the custom derivatives that make the eager mode fast want the latter.

    The `step` of each is int64 [1], and `p` the augmentations' probability, float64 [1]; None
    augments nothing. They have a dimension because the compiler takes a CPU tensor without one for
    a number, and then compiles twice. A stream that a step augments with twice counts two of its
    own steps for it.

    Args:
        dtype: what convolutions compute in.
        compile_on: the device to compile for; None runs operation by operation.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        latents: LatentSource,
        augment: Augmenter,
        dtype: torch.dtype,
        compile_on: torch.device | None = None,
    ):
        self.generator, self.discriminator, self.dtype = generator, discriminator, dtype
        self.latents, self.augment = latents, augment
        if compile_on is not None:
            self.generator_loss = compiled(self.generator_loss, compile_on)
            self.path_lengths = compiled(self.path_lengths, compile_on)
            self.discriminator_loss = compiled(self.discriminator_loss, compile_on)
            self.r1_penalties = compiled(self.r1_penalties, compile_on)

    def generator_loss(self, step: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor]:
        """The generator's loss, and the mean of w [w_dim] over its samples."""
        latents = self.latents.draw(Stream.G_LATENT, step)
        ws = styles(self.generator, latents)
        images = self.generator.synthesis(ws, latents.noise, self.dtype)
        images = self.augment(images, Stream.AUGMENT_FAKE, 2 * step, p)
        loss = losses.generator_loss(self.discriminator(images, latents.label, self.dtype))
        return loss, ws[:, 0].detach().mean(dim=0)

    def path_lengths(self, step: Tensor) -> Tensor:
        """Lengths of J_w^T y of the part of the batch that they are measured on: [m]."""
        latents = self.latents.draw(Stream.PATH_LENGTH, step)
        path_noise = self.latents.path_noise(step)

        def synthesis(ws: Tensor) -> Tensor:
            return self.generator.synthesis(ws, latents.noise, self.dtype)

        ws = styles(self.generator, latents)
        if not torch.compiler.is_compiling():
            return losses.path_lengths(synthesis(ws), ws, path_noise)
        gradient = torch.func.grad(lambda ws: (synthesis(ws) * path_noise).sum())(ws)
        return losses.style_norms(gradient)

    def discriminator_loss(
        self,
        step: Tensor,
        p: Tensor | None,
        reals: Tensor,
        real_label: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The discriminator's loss, and its logits of the real images [n, 1]."""
        with torch.no_grad():
            latents = self.latents.draw(Stream.D_LATENT, step)
            ws = styles(self.generator, latents)
            fakes = self.generator.synthesis(ws, latents.noise, self.dtype)
            fakes = self.augment(fakes, Stream.AUGMENT_FAKE, 2 * step + 1, p)
            reals = self.augment(reals, Stream.AUGMENT_REAL, 2 * step, p)
        images, labels = torch.cat([reals, fakes]), torch.cat([real_label, latents.label])
        logits = self.discriminator(images, labels, self.dtype, batches=2)
        real_logits, fake_logits = logits.chunk(2)
        return losses.discriminator_loss(real_logits, fake_logits), real_logits.detach()

    def r1_penalties(self, step: Tensor, p: Tensor | None, reals: Tensor, label: Tensor) -> Tensor:
        """The R1 penalty of each real image: [n]."""

        def logits(images: Tensor) -> Tensor:
            images = self.augment(images, Stream.AUGMENT_REAL, 2 * step + 1, p)
            return self.discriminator(images, label, self.dtype)

        if not torch.compiler.is_compiling():
            reals = reals.requires_grad_()
            return losses.r1_penalty(logits(reals), reals)
        return losses.squared_norms(torch.func.grad(lambda images: logits(images).sum())(reals))
