"""Export a classifier as an ONNX file, for platforms without Python."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch

import gemix
from gemix.classifier.bundle import Classifier
from gemix.core.environment import cpu_name
from gemix.core.errors import AlreadyFinishedError, ConfigError
from gemix.io.results import best_on_validation, read_classifiers
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.serving import onnx_model
from gemix.serving.scan_classifier import ScanClassifier

_SUFFIX = ".onnx"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxExport:
    """An export that agrees with PyTorch.

    Attributes:
        classifier: its name below ``workspace.classifiers``.
        difference: the largest of a probability, on random images.
        cpu: name of the processor that was timed, and `threads` that it used.
        latencies: as :func:`gemix.serving.onnx_model.latencies` returns them.
    """

    classifier: str
    difference: float
    cpu: str
    threads: int
    latencies: list[dict[str, Any]]


def export_onnx(
    workspace: Workspace, out: str, *, name: str | None = None, overwrite: bool = False
) -> OnnxExport:
    """Write a classifier as ONNX, and beside it a JSON file on what goes in and comes out.

    The JSON file is written last: an export without it was not finished, and is made again.

    The graph takes uint8 images of 0 to 255 in batches of any size; normalization, temperature
    and softmax are inside. It is compared with PyTorch before anything is written.

    Args:
        workspace: with the classifiers.
        out: path or ``s3://`` URL that ends in ``.onnx``.
        name: of the classifier's directory; None for the best on validation.
        overwrite: whether to replace an earlier export.

    Raises:
        ConfigError: without the packages of the extra `onnx`, or for another ending.
        AlreadyFinishedError: if there is a finished export and `overwrite` is not set.
        CheckpointError: without such a classifier, for a damaged one, and for one that cannot be
            exported or does not agree.
    """
    onnx_model.check_installed()
    if not out.endswith(_SUFFIX):
        raise ConfigError(f"{out}: the file's name must end in {_SUFFIX}")
    store, file = Store.of_file(out)
    marker = f"{file.removesuffix(_SUFFIX)}.json"
    if not overwrite and store.exists(marker):
        raise AlreadyFinishedError(f"{out}: is there already; pass --overwrite to replace it")
    if name is None:
        name = best_on_validation(read_classifiers(Store(workspace.classifiers))).name
    classifier = Classifier.load(Store(f"{workspace.classifiers}/{name}"))
    shape = (classifier.spec.channels, *[classifier.spec.resolution] * 2)
    network = onnx_model.ProbabilityNetwork(classifier)
    data = onnx_model.to_onnx(network, np.zeros((2, *shape), np.uint8))
    run = onnx_model.open_session(data)
    difference = onnx_model.largest_difference(network, run, shape)
    description = _description(classifier, name, data, difference)
    store.delete(marker)  # of an earlier export
    store.write_bytes(file, data)
    store.write_json(marker, description)
    return OnnxExport(
        classifier=name,
        difference=difference,
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        latencies=onnx_model.latencies(network, run, shape),
    )


def _description(
    classifier: Classifier, name: str, data: bytes, difference: float
) -> dict[str, Any]:
    spec, decision = classifier.spec, classifier.decision
    images = "images that gemix prepare made, 0 to 255; normalization is inside"
    return {
        "classifier": name,
        "method": classifier.method,
        "checksum": classifier.checksum,
        "sha256": hashlib.sha256(data).hexdigest(),
        "classes": list(classifier.classes),
        "input": {
            "name": onnx_model.INPUT,
            "dtype": "uint8",
            "shape": ["batch", spec.channels, spec.resolution, spec.resolution],
            "description": images,
        },
        "output": {
            "name": onnx_model.OUTPUT,
            "dtype": "float32",
            "shape": ["batch", len(classifier.classes)],
            "description": "probability of each class, calibrated where the decision is; softmax "
            "is inside",
        },
        "preprocessing": classifier.preprocessing,
        "accepts": ScanClassifier(classifier).accepts,
        "decision": decision.to_json(),
        "largest_difference_to_pytorch": difference,
        "versions": {"gemix": gemix.__version__, "torch": torch.__version__},
    }
