"""A classifier as an ONNX model: from images of 0 to 255 to calibrated class probabilities."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gemix.classifier.bundle import Classifier
from gemix.classifier.normalization import Normalization
from gemix.core.errors import CheckpointError, ConfigError

TOLERANCE = 1e-4
"""The most that a probability of the ONNX model may differ from PyTorch's."""

INPUT, OUTPUT = "images", "probabilities"

_CHECKED = (1, 2, 7)  # batches, beside the one that was traced
_TIMED, _WARM_UP, _RUNS = (1, 16), 3, 20


class ProbabilityNetwork(nn.Module):
    """Normalization, network, temperature and softmax of a classifier, on the CPU."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        network = copy.deepcopy(classifier.network)
        self.network = network.to("cpu", memory_format=torch.contiguous_format)
        self.normalization: Normalization = classifier.normalization
        self.temperature = classifier.decision.temperature
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32 [N, K], of uint8 images [N, C, R, R]."""
        logits = self.network(self.normalization(images)).float()
        return (logits / self.temperature).softmax(dim=1)


def check_installed() -> None:
    """Check that the packages of the extra `onnx` are there.

    Raises:
        ConfigError: with the command that installs them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; pip install onnx onnxruntime onnxscript (the extra "
            "`onnx` of gemix)"
        ) from error


def to_onnx(network: ProbabilityNetwork, example: np.ndarray) -> bytes:
    """Return the network as an ONNX file of any batch size.

    Args:
        network: what to export.
        example: uint8 [2, C, R, R], of the shape of its images.

    Raises:
        CheckpointError: for a network that PyTorch cannot export.
    """
    batch = torch.export.Dim("batch")
    try:
        with _silenced():
            program = torch.onnx.export(
                network,
                (torch.from_numpy(example),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": {0: batch}},
                verbose=False,
            )
    except Exception as error:  # of many types, as many as networks have operators
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"PyTorch {torch.__version__} cannot export the network to ONNX ({reason[0][:200]}); "
            "choose another classifier.model, or serve the model with MLflow"
        ) from error
    return program.model_proto.SerializeToString()


def open_session(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of an ONNX file, on as many threads of the CPU as PyTorch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def largest_difference(
    network: ProbabilityNetwork, run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> float:
    """Return the largest difference of a probability between PyTorch and ONNX.

    Args:
        network: in PyTorch.
        run: the same in ONNX.
        shape: of an image.

    Raises:
        CheckpointError: if it is above `TOLERANCE`.
    """
    rng = np.random.default_rng(0)
    largest = 0.0
    for count in _CHECKED:
        images = _random_images(rng, count, shape)
        difference = np.abs(run(images) - _probabilities(network, images))
        # NaN is no agreement
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    if largest > TOLERANCE:
        raise CheckpointError(
            f"the ONNX model's probabilities differ by up to {largest:.2g} from PyTorch's on "
            f"random images, more than {TOLERANCE:g}; install other versions of onnxruntime and "
            "onnxscript, or serve the model with MLflow"
        )
    return largest


def latencies(
    network: ProbabilityNetwork, run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Measure the median time of a batch, from uint8 images to probabilities, on the CPU.

    Returns:
        For each batch size `batch`, `pytorch_ms` and `onnxruntime_ms`.
    """
    fast = copy.deepcopy(network).to(memory_format=torch.channels_last)  # as predict does
    rng = np.random.default_rng(0)
    rows = []
    for count in _TIMED:
        images = _random_images(rng, count, shape)
        rows.append(
            {
                "batch": count,
                "pytorch_ms": _median_ms(lambda x: _probabilities(fast, x), images),
                "onnxruntime_ms": _median_ms(run, images),
            }
        )
    return rows


def _random_images(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise of any brightness and contrast: uint8 [count, *shape]."""
    level, spread = rng.uniform((0, 0), (255, 80), (count, 2)).T.reshape(2, count, 1, 1, 1)
    return rng.normal(level, spread, (count, *shape)).clip(0, 255).astype(np.uint8)


def _probabilities(network: ProbabilityNetwork, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy()


def _median_ms(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> float:
    seconds = []
    for _ in range(_WARM_UP + _RUNS):
        start = time.perf_counter()
        function(images)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[_WARM_UP:])


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress what PyTorch's exporter says of its own inside."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
