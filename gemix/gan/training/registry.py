"""What takes a training from step to step, by the name that `gan.method` takes."""

from __future__ import annotations

from gemix.gan.training.base_trainer import BaseTrainer
from gemix.gan.training.cgan import CganTrainer
from gemix.gan.training.stylegan2_ada import StyleGAN2ADATrainer

TRAINERS: dict[str, type[BaseTrainer]] = {
    "stylegan2-ada": StyleGAN2ADATrainer,
    "cgan": CganTrainer,
}
