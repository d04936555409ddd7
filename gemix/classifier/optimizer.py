"""The optimizer by its timm name, and the schedule of its learning rate."""

from __future__ import annotations

import bisect
import difflib
import functools
import math
from collections.abc import Sequence

from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
)
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gemix.classifier.config import ClassifierConfig
from gemix.core.errors import ConfigError

_HAVE_FUSED = (Adam, AdamW, SGD)


def build_optimizer(network: nn.Module, config: ClassifierConfig) -> Optimizer:
    """Return the optimizer of a network; biases and norms have no weight decay, as in timm.

    Raises:
        ConfigError: as :func:`check_optimizer` has it, or if the optimizer needs a package or a GPU
            that is not there.
    """
    check_optimizer(config.optimizer)
    try:
        kind = get_optimizer_class(config.optimizer, bind_defaults=False)
        # one pass over each tensor instead of nine, which take a third of a small network's step
        fused = {"fused": True} if issubclass(kind, _HAVE_FUSED) else {}
        return create_optimizer_v2(
            network,
            config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            **fused,
        )
    except Exception as error:  # they fail in as many ways as there are packages behind them
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"classifier.optimizer {config.optimizer!r}: {reason}; choose another one, adamw for "
            "example"
        ) from error


def check_optimizer(name: str) -> None:
    """Check that timm has a first-order optimizer of that name.

    Raises:
        ConfigError: with the nearest names, if it has none.
    """
    known = [one for one in list_optimizers() if not get_optimizer_info(one).second_order]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see timm.optim"
        raise ConfigError(
            f"classifier.optimizer {name!r}: timm has no first-order optimizer of that name; {hint}"
        )


def build_schedule(
    optimizer: Optimizer, warmup: float, starts: Sequence[int], total: int
) -> LambdaLR:
    """Return the schedule of the learning rate: a warm-up and half a cosine from each start.

    Args:
        warmup: share of a schedule's steps, 0 to 1.
        starts: steps at which a schedule begins, 0 first.
        total: steps of the whole training.
    """
    factor = functools.partial(_warm_cosines, warmup=warmup, starts=starts, total=total)
    return LambdaLR(optimizer, factor)


def _warm_cosines(step: int, warmup: float, starts: Sequence[int], total: int) -> float:
    """Return the factor of the learning rate: one schedule from each start to the next one."""
    number = bisect.bisect_right(starts, step) - 1
    end = (*starts[1:], total)[number]
    return _warm_cosine(step - starts[number], warmup, end - starts[number])


def _warm_cosine(step: int, warmup: float, total: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
