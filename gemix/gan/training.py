"""Training of StyleGAN2-ADA: the loop, and one method for each phase of a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gemix.errors import GemixError
from gemix.gan import losses
from gemix.gan.augment import AUGMENT_SETS, augment
from gemix.gan.config import GanConfig
from gemix.gan.dataset import TrainingImages
from gemix.gan.device import compute_dtype
from gemix.gan.distributed import Workers
from gemix.gan.latents import LatentSource
from gemix.gan.state import TrainingState
from gemix.randomness import Stream


class DivergedError(GemixError):
    """A loss is no longer a finite number."""


def train(
    state: TrainingState,
    data: TrainingImages,
    config: GanConfig,
    *,
    workers: Workers | None = None,
    on_step: Callable[[TrainingState, dict[str, Tensor]], None] = lambda state, values: None,
) -> TrainingState:
    """Trains until `config.kimg` thousand real images were shown.

    Args:
        state: a new state, or one loaded from a checkpoint; changed in place.
        on_step: called after each step with the state and the step's losses (scalar tensors on
            the training device, of this worker).

    Returns:
        The state.

    Raises:
        DivergedError: when a loss stops being finite.
    """
    trainer = Trainer(state, data, config, workers or Workers.current())
    while state.step * config.batch < config.kimg * 1000:
        on_step(state, trainer.run_step())
    return state


class Trainer:
    """One step of StyleGAN2-ADA, phase by phase."""

    def __init__(
        self, state: TrainingState, data: TrainingImages, config: GanConfig, workers: Workers
    ):
        self.state, self.data, self.config, self.workers = state, data, config, workers
        self.device = data.images.device
        self.dtype = compute_dtype(config.precision, self.device)
        self.positions = workers.positions(config.batch, config.mbstd_group_size)
        self.latents = LatentSource(state.generator, data, config, self.positions)
        self.r1_gamma = config.resolved_r1_gamma(data.images.shape[-1])
        self.augmentations = AUGMENT_SETS[config.augment]

    def run_step(self) -> dict[str, Tensor]:
        """Trains both networks on one batch; returns the losses, by name."""
        state, config, step = self.state, self.config, self.state.step
        values = {"loss_g": self.train_generator()}
        if config.pl_weight and step % config.g_reg_interval == 0:
            values["path_length"] = self.regularize_generator()
        values["loss_d"] = self.train_discriminator()
        if self.r1_gamma and step % config.d_reg_interval == 0:
            values["r1_penalty"] = self.regularize_discriminator()
        state.update_ema(config.batch, config.resolved_ema_kimg, config.ema_rampup)
        if config.augment_p is None and (step + 1) % config.ada_interval == 0:
            values["r_t"] = self.adapt_augmentation()
        state.step += 1
        return values

    def train_generator(self) -> Tensor:
        """Moves the generator to where the discriminator believes its images."""
        with self.updating(self.state.generator, self.state.g_optimizer):
            label, ws, noise = self.latents.styles(Stream.G_LATENT, self.state.step)
            self.state.generator.mapping.update_w_avg(self.workers.mean(ws[:, 0].mean(dim=0)))
            images = self.state.generator.synthesis(ws, noise, self.dtype)
            images = self.augmented(images, Stream.AUGMENT_FAKE, phase=0)
            loss = losses.generator_loss(self.state.discriminator(images, label, self.dtype))
            self.finite(loss, "generator loss").backward()
        return loss.detach()

    def regularize_generator(self) -> Tensor:
        """Evens out the path lengths; returns their mean."""
        config, state = self.config, self.state
        with self.updating(state.generator, state.g_optimizer):
            _, ws, noise = self.latents.styles(
                Stream.PATH_LENGTH, state.step, shrink=config.pl_batch_shrink
            )
            images = state.generator.synthesis(ws, noise, self.dtype)
            lengths = losses.path_lengths(images, ws, self.latents.path_noise(images, state.step))
            mean = self.workers.mean(lengths.mean())
            state.pl_mean = state.pl_mean.lerp(mean.detach(), config.pl_decay)
            loss = losses.path_length_penalty(lengths, state.pl_mean) * config.pl_weight
            # applied once in g_reg_interval steps, with the weight of all of them
            self.finite(loss * config.g_reg_interval, "path length penalty").backward()
        return mean.detach()

    def train_discriminator(self) -> Tensor:
        """Tells real from generated images."""
        with self.updating(self.state.discriminator, self.state.d_optimizer):
            with torch.no_grad():
                label, ws, noise = self.latents.styles(Stream.D_LATENT, self.state.step)
                fakes = self.state.generator.synthesis(ws, noise, self.dtype)
            fakes = self.augmented(fakes, Stream.AUGMENT_FAKE, phase=1)
            reals, real_label = self.real_batch()
            reals = self.augmented(reals, Stream.AUGMENT_REAL, phase=0)
            logits = self.state.discriminator(
                torch.cat([reals, fakes]), torch.cat([real_label, label]), self.dtype, batches=2
            )
            real_logits, fake_logits = logits.chunk(2)
            loss = losses.discriminator_loss(real_logits, fake_logits)
            self.finite(loss, "discriminator loss").backward()
        self.state.sign_sum += real_logits.detach().sign().sum()
        self.state.sign_count += len(real_logits)
        return loss.detach()

    def regularize_discriminator(self) -> Tensor:
        """Keeps the discriminator flat around the real images; returns the mean R1 penalty."""
        with self.updating(self.state.discriminator, self.state.d_optimizer):
            reals, label = self.real_batch()
            images = self.augmented(reals.requires_grad_(), Stream.AUGMENT_REAL, phase=1)
            logits = self.state.discriminator(images, label, self.dtype)
            penalty = losses.r1_penalty(logits, reals).mean()
            loss = penalty * (self.r1_gamma / 2) * self.config.d_reg_interval
            self.finite(loss, "R1 penalty").backward()
        return penalty.detach()

    def adapt_augmentation(self) -> Tensor:
        """Steers p so that r_t = E[sign D(real)] meets its target (section 3.1)."""
        state, config = self.state, self.config
        r_t = self.workers.mean(state.sign_sum / max(state.sign_count, 1))
        change = config.batch * config.ada_interval / (config.ada_kimg * 1000)
        towards = float(torch.sign(r_t - config.ada_target))
        state.augment_p = min(max(state.augment_p + towards * change, 0.0), config.ada_p_max)
        state.sign_sum, state.sign_count = torch.zeros_like(state.sign_sum), 0
        return r_t

    def augmented(self, images: Tensor, stream: Stream, phase: int) -> Tensor:
        """The images as the discriminator is shown them."""
        return augment(
            images,
            self.augmentations,
            self.state.augment_p,
            seed=self.config.seed,
            stream=stream,
            indices=self.positions,
            step=2 * self.state.step + phase,
        )

    def real_batch(self) -> tuple[Tensor, Tensor]:
        """This worker's share of the step's real images and labels."""
        return self.data.real_batch(self.state.step, self.config.batch, self.positions)

    def updating(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> _Updating:
        """Collects gradients for one network only, and takes one optimizer step at the end."""
        return _Updating(network, optimizer, self.state, self.workers)

    def finite(self, loss: Tensor, name: str) -> Tensor:
        """The loss itself, if it is a finite number."""
        if not torch.isfinite(loss):
            kimg = self.state.step * self.config.batch / 1000
            raise DivergedError(
                f"{name} is {loss.item()} after {kimg:.2f} kimg; go back to a checkpoint with a "
                "lower gan.g_lr and gan.d_lr, a higher gan.r1_gamma or gan.precision=float32"
            )
        return loss


class _Updating:
    """Within: only this network learns. At the end: gradients are averaged and applied."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        workers: Workers,
    ):
        self.network, self.optimizer, self.workers = network, optimizer, workers
        self.others = [n for n in state.networks.values() if n is not network]

    def __enter__(self) -> None:
        for other in self.others:
            other.requires_grad_(False)
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.network.requires_grad_(False)
        if kind is None:
            self.workers.average_gradients(self.network)
            self.optimizer.step()
