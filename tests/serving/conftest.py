"""Prepared sets of DICOM files and of PNG files, and classifiers of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.core.png import encode_png
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.prepare import prepare_serial
from gemix.data.prepare.encoded_scan import preparation_settings
from gemix.data.preprocessing.windows import apply_window
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.data.sources.dicom.source import SALT as SALT_VARIABLE
from gemix.io.storage import Store
from tests.data.dicom_files import SALT, write

RESOLUTION = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """Files, and the images that `gemix prepare` made of them.

    Attributes:
        url: of the shards.
        config: of the data.
        files: the scans.
    """

    url: str
    config: DataConfig
    files: tuple[Path, ...]

    @property
    def manifest(self) -> Manifest:
        return Manifest.load(Store(self.url))

    def images(self) -> set[bytes]:
        """The pixels of all prepared images."""
        splits = (read_images([self.url], split) for split in ("train", "val", "test"))
        return {image.tobytes() for split in splits for image in split.images}

    def classifier(self) -> Classifier:
        """A network of random weights that knows how its images were prepared."""
        channels = self.manifest.channels
        spec = ModelSpec(model="test_resnet", classes=3, channels=channels, resolution=RESOLUTION)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = build(spec).state_dict()
        state["fc.weight"] *= 30  # so that it does not say the same of all images
        validation = {"epoch": 1, "val_macro_f2": 0.9, "val_loss": 1.0}
        return Classifier(
            spec=spec,
            normalization=Normalization(mean=(0.5,) * channels, std=(0.3,) * channels),
            classes=self.manifest.classes,
            method="real",
            config=ClassifierConfig(model="test_resnet"),
            training_digest="0" * 64,
            history=(validation,),
            validation=validation,
            state=state,
            preprocessing=preparation_settings(self.manifest),
        )


@pytest.fixture(scope="session")
def scans() -> list[tuple[str, str, np.ndarray]]:
    """24 slices of 12 phantoms: class, patient and Hounsfield units [H, W]."""
    phantom = PhantomConfig(patients_per_class=4, slices_per_patient=2)
    source = open_source(DataConfig(phantom=phantom, resolution=RESOLUTION))
    listing = source.list()
    return [
        (listing.classes[item.class_index], item.group, source.load(item).pixels)
        for item in listing.items
    ]


@pytest.fixture(scope="session")
def dicom_set(scans, tmp_path_factory) -> PreparedSet:
    """The slices as DICOM files, under three windows, a channel each."""
    root = tmp_path_factory.mktemp("dicom")
    files, lines = [], {"patient,class": None}
    for number, (name, patient, pixels) in enumerate(scans):
        path, stored = root / "scans" / f"slice {number}", np.rint(pixels + 1024).astype(np.uint16)
        series = {"PatientID": patient, "InstanceNumber": 1 + number, "PixelSpacing": [0.7, 0.75]}
        files.append(write(path, stored, **series))
        lines[f"{patient},{name}"] = None
    (root / "scans" / "labels.csv").write_text("\n".join(lines))
    config = DataConfig(
        source="dicom",
        path=str(root / "scans"),
        labels="labels.csv",
        resolution=RESOLUTION,
        windows=("lung", "mediastinal", "-600/1500"),
    )
    return _prepare(root, config, tuple(files))


@pytest.fixture(scope="session")
def png_set(scans, tmp_path_factory) -> PreparedSet:
    """The slices as PNG files, windowed already."""
    root = tmp_path_factory.mktemp("png")
    files = []
    for number, (name, patient, pixels) in enumerate(scans):
        path = root / "scans" / name / f"{patient} {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(apply_window(pixels, -500, 1400)[..., None]))
        files.append(path)
    config = DataConfig(
        source="folder",
        path=str(root / "scans"),
        patient_pattern=r"([^/]+) \d+\.png",
        resolution=RESOLUTION,
    )
    return _prepare(root, config, tuple(files))


def _prepare(root: Path, config: DataConfig, files: tuple[Path, ...]) -> PreparedSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SALT_VARIABLE, SALT)
        prepare_serial(open_source(config), config, Store(root / "data"))
    return PreparedSet(url=str(root / "data"), config=config, files=files)
