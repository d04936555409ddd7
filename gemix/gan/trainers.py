"""What takes a training from step to step, by the name that `gan.method` takes."""

from __future__ import annotations

from gemix.gan.cgan_training import CganTrainer
from gemix.gan.phases import PhaseTrainer
from gemix.gan.stylegan2_ada import StyleGAN2ADATrainer

TRAINERS: dict[str, type[PhaseTrainer]] = {
    "stylegan2-ada": StyleGAN2ADATrainer,
    "cgan": CganTrainer,
}
