"""Serve a classifier over HTTP with Ray Serve, which starts replicas and batches requests.

``serve run infra/serve.yaml`` starts it; `application` is what the file names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gemix.core.errors import ConfigError, DataError

_LARGEST_BATCH, _WAIT_SECONDS = 16, 0.01


@serve.deployment
class ClassifierService:
    """Answer requests such as MLflow's server takes, images as files or arrays.

    ``POST /invocations`` with ``{"inputs": [...]}``: base64 text a file, or numbers [N, C, R, R].
    The answer is ``{"predictions": [{"class": ..., "probabilities": {...}}, ...]}``, or a status of
    400 and a message. With ``"params": {"explain": true}`` each row has a third key, `grad_cam`, a
    PNG file as base64 text. ``GET /ping`` answers 200.

    Args:
        model: ``models:/<name>@<alias>`` of the registry, or a classifier's directory, a path or
            ``s3://`` URL.
    """

    def __init__(self, model: str):
        # here, since only replicas need PyTorch
        from gemix.classifier.bundle import Classifier
        from gemix.io.storage import Store
        from gemix.serving.scan_classifier import ScanClassifier

        if model.startswith("models:/"):
            from gemix.tracking.model_registry import load_registered

            classifier = load_registered(model)
        else:
            classifier = Classifier.load(Store(model))
        self._model, spec = ScanClassifier(classifier), classifier.spec
        self._black = np.zeros((1, spec.channels, spec.resolution, spec.resolution), np.uint8)
        self._model.predict(self._black)  # a replica that cannot answer must not start

    async def check_health(self) -> None:
        """Classify a black image; Ray replaces the replica if that fails."""
        await asyncio.to_thread(self._model.predict, self._black)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        if request.url.path.endswith("/ping"):
            return Response()
        if request.method != "POST":
            return JSONResponse({"message": "POST images to /invocations"}, 405)
        try:
            values, explain = _read(await request.body())
            images = await asyncio.to_thread(self._model.images, values)
            answers = await asyncio.gather(*(self._classify(image) for image in images))
            if explain:
                answers = await asyncio.to_thread(self._model.explain, images, answers)
        except DataError as error:
            return JSONResponse({"message": str(error)}, 400)
        return JSONResponse({"predictions": answers})

    @serve.batch(max_batch_size=_LARGEST_BATCH, batch_wait_timeout_s=_WAIT_SECONDS)
    async def _classify(self, images: list[np.ndarray]) -> list[dict]:
        """Classify images of any requests together."""
        probabilities = await asyncio.to_thread(self._model.predict, np.stack(images))
        return self._model.describe(probabilities)


def application(args: Mapping[str, str]) -> serve.Application:
    """Return the application of the arguments in ``serve.yaml``.

    Raises:
        ConfigError: for other arguments than `model`.
    """
    if set(args) != {"model"}:
        raise ConfigError(
            f"args of the application: {sorted(args)}; give one, model: models:/<name>@<alias> or "
            "a classifier's directory"
        )
    return ClassifierService.bind(args["model"])


def _read(body: bytes) -> tuple[np.ndarray, bool]:
    """Return the `inputs` of a request as an array of objects, and its parameter `explain`.

    Raises:
        DataError: if there are no inputs, or for other parameters.
    """
    try:
        tree = json.loads(body)
        values = np.array(tree["inputs"], dtype=object, ndmin=1)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise DataError(
            'the request: not JSON with "inputs", a list of base64 texts or of arrays of one shape'
        ) from None
    params = tree.get("params") or {}
    if params not in ({}, {"explain": True}, {"explain": False}):
        raise DataError('"params" of the request: give {"explain": true}, or none')
    return values, params.get("explain", False)
