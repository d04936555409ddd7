"""The GAN methods and adversarial losses by name: one line each.

Entries are references, resolved in :mod:`gemix.gan.training.registry` and
:mod:`gemix.gan.losses.registry`, so that the settings, which know the names, cost no import of
PyTorch.
"""

from __future__ import annotations

# what ``gan.method`` takes: subclasses of gemix.gan.training.base_trainer.BaseTrainer
METHODS: dict[str, str] = {
    "stylegan2-ada": "gemix.gan.training.stylegan2_ada:StyleGAN2ADATrainer",
    "cgan": "gemix.gan.training.cgan:CganTrainer",
}

# what ``gan.cgan_loss`` takes: instances of gemix.gan.losses.base.AdversarialLoss
LOSSES: dict[str, str] = {
    "minimax": "gemix.gan.losses.adversarial:MINIMAX",
    "nonsaturating": "gemix.gan.losses.adversarial:NONSATURATING",
}
