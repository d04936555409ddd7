"""The adversarial losses by the name that `GanConfig.adversarial_loss` returns.

A new loss is its two functions in a file and one line in :mod:`gemix.gan.registry`. Each must pass
:func:`gemix.gan.testing.check_loss`.
"""

from __future__ import annotations

import pkgutil

from gemix.gan import registry
from gemix.gan.losses.base import AdversarialLoss

ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    name: pkgutil.resolve_name(reference) for name, reference in registry.LOSSES.items()
}
