"""The losses of StyleGAN2-ADA's phases, from random numbers through both networks."""

from __future__ import annotations

import torch
from torch import Tensor

from gemix.core.rng import Stream
from gemix.gan.acceleration.accelerate import Accelerate, run_eagerly
from gemix.gan.augment.augmenter import Augmenter
from gemix.gan.losses import regularizers
from gemix.gan.losses.base import AdversarialLoss
from gemix.gan.losses.classification import classification_loss
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from gemix.gan.training.latents import LatentSampler, mixed_styles


class StyleGAN2Loss:
    """One method a phase, a pure function of the networks' weights and of its arguments.

    Random numbers are a function of the step. No method communicates with other workers or changes
    anything, so each can be captured or compiled as a whole, random numbers and backward pass
    included.

    Arguments of all methods: `step`, int64 [1]; `batch_index`, of the samples in the global batch,
    int64 [n]; `p`, probability of the augmentations, float64 [1], None for no augmentation. They
    have a dimension because the compiler takes a CPU tensor without one for a number, and then
    compiles twice. A stream that a step augments with twice counts two steps of its own for it.

    Args:
        adversarial: the losses of logits.
        classifier_weight: of the auxiliary classifier's cross-entropy in both losses: of real
            images, whose labels it learns, in the discriminator's; of generated ones, against the
            label asked for, in the generator's.
        dtype: what convolutions compute in.
        accelerate: captures or compiles the methods.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        latents: LatentSampler,
        augment: Augmenter,
        adversarial: AdversarialLoss,
        classifier_weight: float,
        dtype: torch.dtype,
        accelerate: Accelerate = run_eagerly,
    ):
        self.generator, self.discriminator, self.dtype = generator, discriminator, dtype
        self.latents, self.augment, self.adversarial = latents, augment, adversarial
        self.classifier_weight = classifier_weight
        self.generator_loss = accelerate(self.generator_loss, generator)
        self.path_lengths = accelerate(self.path_lengths, generator)
        self.discriminator_loss = accelerate(self.discriminator_loss, discriminator)
        self.r1_penalties = accelerate(self.r1_penalties, discriminator)

    def generator_loss(
        self, step: Tensor, batch_index: Tensor, p: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the generator's loss, and the mean of w [w_dim] over its samples."""
        latents = self.latents.draw(Stream.G_LATENT, step, batch_index)
        ws = mixed_styles(self.generator, latents)
        images = self.generator.synthesis(ws, latents.noise, self.dtype)
        images = self.augment(images, Stream.AUGMENT_FAKE, 2 * step, batch_index, p)
        output = self.discriminator.outputs(images, latents.shown_label, self.dtype)
        loss = self.adversarial.generator(output.logits)
        if output.class_logits is not None:
            loss = loss + self.weighted_classification(output.class_logits, latents.label)
        return loss, ws[:, 0].detach().mean(dim=0)

    def path_lengths(self, step: Tensor, batch_index: Tensor) -> Tensor:
        """Return the length of J_w^T y for each sample: [n]."""
        latents = self.latents.draw(Stream.PATH_LENGTH, step, batch_index)
        path_noise = self.latents.path_noise(step, batch_index)

        def synthesis(ws: Tensor) -> Tensor:
            return self.generator.synthesis(ws, latents.noise, self.dtype)

        ws = mixed_styles(self.generator, latents)
        return regularizers.path_lengths(synthesis, ws, path_noise)

    def discriminator_loss(
        self,
        step: Tensor,
        batch_index: Tensor,
        p: Tensor | None,
        reals: Tensor,
        real_label: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the discriminator's loss, and its logits of the real images [n, 1]."""
        with torch.no_grad():
            latents = self.latents.draw(Stream.D_LATENT, step, batch_index)
            ws = mixed_styles(self.generator, latents)
            fakes = self.generator.synthesis(ws, latents.noise, self.dtype)
            fakes = self.augment(fakes, Stream.AUGMENT_FAKE, 2 * step + 1, batch_index, p)
            reals = self.augment(reals, Stream.AUGMENT_REAL, 2 * step, batch_index, p)
        images, labels = torch.cat([reals, fakes]), torch.cat([real_label, latents.shown_label])
        output = self.discriminator.outputs(images, labels, self.dtype, batches=2)
        real_logits, fake_logits = output.logits.chunk(2)
        loss = self.adversarial.discriminator(real_logits, fake_logits)
        if output.class_logits is not None:
            of_reals = output.class_logits[: len(reals)]
            loss = loss + self.weighted_classification(of_reals, real_label)
        return loss, real_logits.detach()

    def weighted_classification(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the auxiliary classifier's part of a loss; [n, K] each."""
        return self.classifier_weight * classification_loss(class_logits, labels)

    def r1_penalties(
        self, step: Tensor, batch_index: Tensor, p: Tensor | None, reals: Tensor, label: Tensor
    ) -> Tensor:
        """Return the R1 penalty of each real image: [n]."""

        def logits(images: Tensor) -> Tensor:
            images = self.augment(images, Stream.AUGMENT_REAL, 2 * step + 1, batch_index, p)
            return self.discriminator(images, label, self.dtype)

        return regularizers.r1_penalty(logits, reals)
