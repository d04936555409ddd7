"""A classifier together with the preprocessing of its training images."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from gemix.classifier import grad_cam
from gemix.classifier.bundle import Classifier
from gemix.classifier.predict import BATCH
from gemix.core.errors import DataError
from gemix.data.prepare.encoded_scan import Preparation
from gemix.data.scan import InvalidImageError
from gemix.serving.encoded_rows import encoded_bytes
from gemix.serving.overlay import overlay


class ScanClassifier:
    """Classification of images as arrays, or as the files that hospitals have.

    Thread-safe.

    Args:
        classifier: a trained classifier; without preprocessing it takes arrays alone.

    Raises:
        DataError: for preprocessing that this version does not know.
    """

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        settings = classifier.preprocessing
        self.preparation = None if settings is None else Preparation.from_settings(settings)
        self._lock = threading.Lock()
        self._explaining = threading.Lock()

    @property
    def accepts(self) -> str:
        """Description of the accepted images."""
        spec = self.classifier.spec
        shape = f"[N, {spec.channels}, {spec.resolution}, {spec.resolution}]"
        arrays = f"uint8 arrays {shape} of images that gemix prepare made"
        return arrays if self.preparation is None else f"{arrays}, or {self.preparation.accepts}"

    def images(self, values: np.ndarray) -> np.ndarray:
        """Return the images to classify, with exactly the preprocessing of ``gemix prepare``.

        Args:
            values: whole numbers 0 to 255 [N, C, R, R], which stay as they are, or [N] encoded
                images, as :func:`gemix.serving.encoded_rows.encoded_bytes` takes them, in an array
                of dtype object or text.

        Returns:
            uint8 [N, C, R, R].

        Raises:
            DataError: for other arrays, or for the first image that cannot be used, with its row.
        """
        if values.ndim == 1:
            return self._prepared(values)
        spec = self.classifier.spec
        if values.ndim == 4 and values.shape[1:] == (spec.channels, *[spec.resolution] * 2):
            return _to_uint8(values)
        raise DataError(
            f"an array of shape {list(values.shape)}; the classifier takes {self.accepts}"
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return calibrated class probabilities, float32 [N, K], of uint8 images [N, C, R, R].

        Raises:
            DataError, CheckpointError: as :meth:`gemix.classifier.bundle.Classifier.predict` does.
        """
        return self.classifier.predict(images)

    def describe(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        """Return an answer for each image: its class as decided, and all probabilities by name.

        Args:
            probabilities: float32 [N, K].
        """
        classes = self.classifier.classes
        decided = self.classifier.decision.decide(probabilities)
        return [
            {"class": classes[label], "probabilities": dict(zip(classes, row, strict=True))}
            for label, row in zip(decided.tolist(), probabilities.tolist(), strict=True)
        ]

    def explain(
        self, images: np.ndarray, answers: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the answers with `grad_cam` added: what spoke for the class that was answered.

        It is the image under its Grad-CAM map (:mod:`gemix.classifier.grad_cam`), a PNG file of the
        classifier's resolution as base64 text.

        Args:
            images: uint8 [N, C, R, R].
            answers: of :meth:`describe`, one an image.

        Raises:
            DataError: without Captum, or for a network that has no such map.
        """
        if not grad_cam.is_installed():
            raise DataError(
                "no Grad-CAM, since captum is not installed where the model runs; pip install "
                "captum there, or ask without explain"
            )
        labels = np.array([self.classifier.classes.index(one["class"]) for one in answers])
        pictures = []
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            with self._explaining:  # Captum's hooks see whatever runs through the network
                found = grad_cam.grad_cam(
                    self._explained, self.classifier.normalization, images[part], labels[part]
                )
            pictures += map(overlay, images[part], found.maps)
        return [one | {"grad_cam": picture} for one, picture in zip(answers, pictures, strict=True)]

    @functools.cached_property
    def _explained(self) -> nn.Module:
        """A copy of the network, so that predictions of other threads meet no hook."""
        return copy.deepcopy(self.classifier.network)

    def _prepared(self, values: np.ndarray) -> np.ndarray:
        spec, preparation = self.classifier.spec, self.preparation
        if preparation is None:
            raise DataError(
                "encoded images; this classifier was saved without the preprocessing of its "
                f"training images, so it takes {self.accepts}; train it again for files"
            )
        if values.dtype.kind == "S":  # NumPy cuts zero bytes off the end
            raise DataError("an array of dtype bytes, which loses bytes; make it of dtype object")
        images = np.empty((len(values), spec.channels, *[spec.resolution] * 2), np.uint8)
        for row, value in enumerate(values):
            try:
                with self._lock:  # decoding silences warnings, which is global
                    images[row] = preparation.image(encoded_bytes(value))
            except InvalidImageError as reason:
                raise DataError(f"image {row} of {len(values)}: {reason}") from None
        return images


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """Return numbers, which JSON gives as objects, as uint8."""
    if values.dtype == np.uint8:
        return values
    try:
        images = values.astype(np.uint8)
        is_same = np.array_equal(images, values)
    except (OverflowError, TypeError, ValueError):
        is_same = False
    if not is_same:
        raise DataError(
            f"an array of dtype {values.dtype} with values that are not whole numbers from 0 to "
            "255; give the greys that gemix prepare makes"
        )
    return images
