"""The decision of a classifier, as it is stored with its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import scipy.optimize
import scipy.special
import torch

from gemix.classifier.decision.base import ScoredImages
from gemix.classifier.decision.config import DecisionConfig
from gemix.classifier.decision.registry import load_rule
from gemix.core.errors import DataError

_SUREST = 30.0  # of log-odds: 1 - 1e-13, which float64 can still tell from 1
TEMPERATURES = (0.05, 20.0)  # bounds; validation images without an error would have it near 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """From logits to probabilities, and from probabilities to classes.

    Attributes:
        temperature: that divides the logits (Guo et al., "On calibration of modern neural
            networks", ICML 2017, section 4.2).
        config: how it was fitted; None for a decision that was not.
        normal: index of the healthy class; None if there is none.
        threshold: probability of any disease, 0 to 1, from which an image counts as diseased; None
            for the most probable class.
    """

    temperature: float = 1.0
    config: DecisionConfig | None = None
    normal: int | None = None
    threshold: float | None = None

    @classmethod
    def fit(
        cls,
        logits: np.ndarray,
        labels: np.ndarray,
        groups: Sequence[str],
        normal: int | None,
        config: DecisionConfig,
    ) -> Self:
        """Fit temperature and threshold to validation images.

        Args:
            logits: float [N, K].
            labels: true classes, int [N].
            groups: of the images, N.
            normal: index of the healthy class, if there is one.

        Raises:
            DataError: if the rule needs a healthy class, or more patients than there are.
        """
        check_rule(config, labels, groups, normal)
        fitted = cls(
            temperature=_temperature(logits, labels) if config.calibrate else 1.0,
            config=config,
            normal=normal,
        )
        if normal is None:
            return fitted
        images = ScoredImages(
            scores=fitted.disease_log_odds(fitted.probabilities(logits)),
            is_diseased=np.asarray(labels) != normal,
            groups=np.asarray(groups),
        )
        found = load_rule(config.rule)(images, config.level)
        threshold = None if found is None else float(scipy.special.expit(found))
        return dataclasses.replace(fitted, threshold=threshold)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated class probabilities of logits [N, K]: float32 [N, K], sums of 1."""
        scaled = torch.from_numpy(np.asarray(logits, np.float32)) / self.temperature
        return scaled.softmax(dim=1).numpy()

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the class of each image, int64 [N]: the healthy one below the threshold.

        From it on the most probable of the other classes, even where the healthy one is more so.

        Args:
            probabilities: float [N, K].
        """
        if self.threshold is None or self.normal is None:
            return probabilities.argmax(axis=1)
        others = probabilities.copy()
        others[:, self.normal] = -1
        is_diseased = self.disease_log_odds(probabilities) >= scipy.special.logit(self.threshold)
        return np.where(is_diseased, others.argmax(axis=1), self.normal)

    def disease_log_odds(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the log-odds of any disease, float64 [N], within +-30.

        Unlike the probability they tell images apart of which a network is almost sure.
        """
        healthy = probabilities[:, self.normal].astype(np.float64)
        others = np.delete(probabilities, self.normal, axis=1).sum(axis=1, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return np.clip(np.log(others) - np.log(healthy), -_SUREST, _SUREST)

    def to_json(self) -> dict[str, Any]:
        """Return what ``model.json`` holds."""
        return {
            "temperature": self.temperature,
            "config": None if self.config is None else self.config.to_mapping(),
            "normal": self.normal,
            "threshold": self.threshold,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Return the decision that ``model.json`` holds.

        Raises:
            ValueError, TypeError, KeyError: if it is none.
        """
        temperature = float(tree["temperature"])
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"decision: temperature {temperature}")
        config, threshold = tree["config"], tree["threshold"]
        return cls(
            temperature=temperature,
            config=None if config is None else DecisionConfig.from_mapping(config),
            normal=None if tree["normal"] is None else int(tree["normal"]),
            threshold=None if threshold is None else float(threshold),
        )


UNFITTED = Decision()
"""The softmax of the logits, and the most probable class."""


def check_rule(
    config: DecisionConfig, labels: np.ndarray, groups: Sequence[str], normal: int | None
) -> None:
    """Check, before anything is trained, that validation images can support the rule.

    Raises:
        DataError: if the rule needs a healthy class, or more patients than there are.
    """
    if normal is None:
        if config.rule != "most-probable":
            raise DataError(
                f"decision.rule={config.rule} needs a healthy class, and none is known; set "
                "data.normal_class, or decision.rule=most-probable"
            )
        return
    labels = np.asarray(labels)
    unknown = ScoredImages(
        scores=np.zeros(len(labels)), is_diseased=labels != normal, groups=np.asarray(groups)
    )
    load_rule(config.rule)(unknown, config.level)


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of the least negative log-likelihood."""
    logits = np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scipy.special.log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    bounds = tuple(math.log(bound) for bound in TEMPERATURES)
    return float(math.exp(scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))
