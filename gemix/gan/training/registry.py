"""The methods by the name that ``gan.method`` takes, and the state each starts from.

A new method is one file with a subclass of :class:`gemix.gan.training.base_trainer.BaseTrainer`,
which names its networks and Adam's settings, and one line in :mod:`gemix.gan.registry`. Data,
loop, divergence monitor, checkpoints, resuming and sampling are the same for all.
:mod:`gemix.gan.testing` checks what every method must do.
"""

from __future__ import annotations

import copy
import pkgutil

import torch
from torch import nn

from gemix.core.rng import Stream, sample_rng
from gemix.gan import registry
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.base_trainer import AdamSettings, BaseTrainer
from gemix.gan.training.state import TrainingState

METHODS: dict[str, type[BaseTrainer]] = {
    name: pkgutil.resolve_name(reference) for name, reference in registry.METHODS.items()
}
ADAM_EPS = 1e-8


def new_state(architecture: Architecture, config: GanConfig, device: torch.device) -> TrainingState:
    """Return the state of `config.method` before the first step, a function of `config.seed`."""
    method = METHODS[config.method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sample_rng(config.seed, Stream.INIT).integers(2**63)))
        generator = method.generator(architecture)
        discriminator = method.discriminator(architecture)
    generator.to(device), discriminator.to(device)
    g_settings, d_settings = method.adam(config, architecture.resolution)
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        generator_ema=copy.deepcopy(generator).requires_grad_(False).eval(),
        g_optimizer=_adam(generator, g_settings),
        d_optimizer=_adam(discriminator, d_settings),
        pl_mean=torch.zeros([], device=device),
        sign_sum=torch.zeros([], device=device),
        sign_count=torch.zeros([], dtype=torch.int64, device=device),
        augment_p=torch.tensor(config.augment_p or 0.0, dtype=torch.float64, device=device),
        skipped_updates=torch.zeros([], dtype=torch.int64, device=device),
        phase_failures=torch.zeros(len(method.phases(config)), dtype=torch.int64, device=device),
        precision=config.precision,
    )


def _adam(network: nn.Module, settings: AdamSettings) -> torch.optim.Adam:
    # fallbacks (gemix.gan.training.fallback) scale initial_lr
    group = {"params": list(network.parameters()), "initial_lr": settings.lr}
    return torch.optim.Adam([group], lr=settings.lr, betas=settings.betas, eps=ADAM_EPS, fused=True)
