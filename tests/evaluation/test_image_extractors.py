"""One contract for every kind of feature extractor, and what is said where one cannot be had."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.core.errors import ConfigError
from gemix.evaluation.image_quality.features.base import Extractor
from gemix.evaluation.image_quality.features.registry import EXTRACTORS, open_extractor
from gemix.evaluation.image_quality.features.testing import FeatureExtractorContract
from gemix.io.storage import Store

CPU = torch.device("cpu")


class Pooled(nn.Module):
    """Means over quarters of the image, for uint8 images, as public metric networks take them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


class OnnxSession:
    """Stands for onnxruntime's session: the same calls, answered by `Pooled`.

    The package is large and optional, so the binding is held against its documented interface.
    """

    def __init__(self, data: bytes, providers: list[str]):
        if data != b"a model":
            raise ValueError("INVALID_PROTOBUF")
        assert providers == ["CPUExecutionProvider"]

    def get_inputs(self):
        shape = ["batch", 3, 32, 32]
        return [types.SimpleNamespace(name="images", type="tensor(float)", shape=shape)]

    def run(self, names, feed):
        images = feed["images"]
        assert images.dtype == np.float32 and images.shape[1:] == (3, 32, 32)
        return [Pooled()(torch.from_numpy(images)).numpy()]


@pytest.fixture
def onnx(monkeypatch) -> None:
    module = types.ModuleType("onnxruntime")
    module.InferenceSession = OnnxSession
    module.get_available_providers = lambda: ["CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


@pytest.fixture
def pretrained(monkeypatch) -> None:
    """Gives timm weights without a network."""
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, **options):
        assert pretrained
        with torch.random.fork_rng():
            torch.manual_seed(11)
            return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)


def save_classifier(folder: Path, channels: int = 1) -> str:
    spec = ModelSpec(model="test_resnet", classes=3, channels=channels, resolution=32)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = build(spec).state_dict()
    Classifier(
        spec=spec,
        normalization=Normalization(mean=(0.4,) * channels, std=(0.2,) * channels),
        classes=("a", "b", "c"),
        method="real",
        config=ClassifierConfig(model="test_resnet"),
        training_digest="0" * 64,
        history=(),
        validation={},
        state=state,
    ).save(Store(folder))
    return str(folder)


@pytest.fixture
def open_kind(tmp_path: Path, request) -> Callable[[str], Extractor]:
    def open_it(kind: str) -> Extractor:
        if kind == "torchscript":
            torch.jit.save(torch.jit.script(Pooled()), str(tmp_path / "net.pt"))
            return open_extractor(f"torchscript:{tmp_path / 'net.pt'}", 32, CPU)
        if kind == "onnx":
            request.getfixturevalue("onnx")
            (tmp_path / "net.onnx").write_bytes(b"a model")
            return open_extractor(f"onnx:{tmp_path / 'net.onnx'}", 32, CPU)
        if kind == "bundle":
            return open_extractor(f"bundle:{save_classifier(tmp_path / 'classifier')}", 32, CPU)
        if kind == "timm":
            request.getfixturevalue("pretrained")
        return open_extractor(f"{kind}:test_resnet", 32, CPU)

    return open_it


def pictures(count: int, *, side: int = 32, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


@pytest.mark.parametrize("kind", EXTRACTORS)
class TestEveryExtractor(FeatureExtractorContract):
    @pytest.fixture(autouse=True)
    def _choose(self, kind, open_kind):
        self.kind, self.open_kind = kind, open_kind

    def open(self, device):
        return self.open_kind(self.kind)


def test_an_extractor_that_breaks_the_contract_fails_it():
    class Batchwise(FeatureExtractorContract):
        def open(self, device):
            def forward(images):
                features = images.float().flatten(1)
                return features - features.mean(dim=0)

            return Extractor(name="odd", checksum="0" * 64, forward=forward, device=device)

    with pytest.raises(AssertionError):
        Batchwise().test_features_depend_on_the_image_alone()


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ConfigError, match="choose one of timm:<what>, timm-random:<what>"):
        open_extractor("inception:v3", 32, CPU)


def test_untrained_weights_are_the_same_everywhere():
    extractor = open_extractor("timm-random:test_resnet", 32, CPU)
    assert extractor.checksum.startswith("d77b112380cf3cf7")
    assert extractor.name == "timm-random:test_resnet of seed 0 at 64 x 64"


def test_an_untrained_transformer_has_its_own_size():
    extractor = open_extractor("timm-random:test_vit", 32, CPU)
    assert "at 160 x 160" in extractor.name
    assert extractor(pictures(2)).std() > 0


def test_weights_that_cannot_be_had_name_the_remedy(monkeypatch):
    def no_network(*args, **options):
        raise OSError("Connection refused")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(
        ConfigError, match=r"Connection refused.*metrics\.extractor=timm-random:resnet50"
    ):
        open_extractor("timm:resnet50", 32, CPU)


def test_an_unknown_model_is_told():
    with pytest.raises(ConfigError, match=r"timm-random:resnet19.*timm\.list_models"):
        open_extractor("timm-random:resnet19", 32, CPU)


def test_onnx_without_onnxruntime_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'gemix\[onnx\]'"):
        open_extractor(f"onnx:{tmp_path / 'net.onnx'}", 32, CPU)


@pytest.mark.usefixtures("onnx")
@pytest.mark.parametrize(
    ("kind", "words"), [("torchscript", r"torch\.jit\.save"), ("onnx", "INVALID_PROTOBUF")]
)
def test_files_that_are_no_model_or_missing(kind, words, tmp_path):
    (tmp_path / "bad").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=words):
        open_extractor(f"{kind}:{tmp_path / 'bad'}", 32, CPU)
    with pytest.raises(ConfigError, match="correct the path"):
        open_extractor(f"{kind}:{tmp_path / 'none'}", 32, CPU)


def test_a_bundle_that_is_none_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no finished classifier"):
        open_extractor(f"bundle:{tmp_path}", 32, CPU)


def test_features_that_are_no_table_of_numbers_are_refused():
    for forward in (
        lambda images: images.float(),
        lambda images: images.float().flatten(1)[:1],
        lambda images: images.float().flatten(1) / 0,
    ):
        extractor = Extractor(name="odd", checksum="0" * 64, forward=forward, device=CPU)
        with pytest.raises(ConfigError, match=r"metrics\.extractor odd: returned"):
            extractor(pictures(3))


def test_a_file_that_returns_features_on_request_is_asked_to(tmp_path):
    class Detector(nn.Module):
        def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            pooled = images.float().mean(dim=(2, 3))
            return pooled if return_features else pooled[:, :1]

    torch.jit.save(torch.jit.script(Detector()), str(tmp_path / "detector.pt"))
    extractor = open_extractor(f"torchscript:{tmp_path / 'detector.pt'}", 32, CPU)
    assert extractor(pictures(2)).shape == (2, 3)
