"""Every registered source meets the contract; the registry names what settings need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.config_schema import InvalidConfig
from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.sources import open_source
from gemix.data.sources.registry import SOURCES
from gemix.data.testing import SourceContract


class Registered(SourceContract):
    """Opens the source `name` through the registry, of an archive that a fixture writes."""

    name: str
    fixture: str

    @pytest.fixture(autouse=True)
    def _write(self, request):
        self.write = request.getfixturevalue(self.fixture)

    def settings(self) -> dict:
        return {}

    def open(self, folder):
        return open_source(DataConfig(source=self.name, path=str(self.write()), **self.settings()))


class TestFolder(Registered):
    name, fixture, has_groups = "folder", "make_folder", False


class TestFolderOfSplits(Registered):
    name, fixture = "folder", "make_folder"

    def settings(self):
        return {"patient_pattern": r"slice (\d+)"}

    def open(self, folder):
        for split in ("train", "test"):
            root = self.write(f"scans/{split}")
        config = DataConfig(source=self.name, path=str(root.parent), **self.settings())
        return open_source(config)


class TestCovidx(Registered):
    name, fixture = "covidx", "make_covidx"


class TestDicom(Registered):
    name, fixture = "dicom", "make_dicom"
    whole_files = 4  # one of each series, to see that it holds Hounsfield units

    @pytest.fixture(autouse=True)
    def _small_chunks(self, monkeypatch):
        monkeypatch.setattr("gemix.data.sources.dicom.source._CHUNK", 3)

    def settings(self):
        return {"labels": "labels.csv"}


class TestNifti(Registered):
    name, fixture = "nifti", "make_nifti"

    @pytest.fixture(autouse=True)
    def _small_chunks(self, monkeypatch):
        monkeypatch.setattr("gemix.data.sources.nifti.source._CHUNK", 3)


class TestMedMnist(Registered):
    name, fixture, has_groups, whole_files = "medmnist", "make_medmnist", False, 1

    def file_of(self, source, item):
        return Path(source.store.url) / source.name


class TestParquet(Registered):
    name, fixture, has_groups = "parquet", "make_parquet", False

    @pytest.fixture
    def make_parquet(self, tmp_path, grey_slices):
        def make():
            for name, chosen in (("a", grey_slices[:3]), ("b", grey_slices[3:6])):
                columns = {
                    "image": [image.tobytes() for image in chosen],
                    "channels": [1] * 3,
                    "height": [96] * 3,
                    "width": [96] * 3,
                    "class": ["x", "y", "x"],
                }
                (tmp_path / "parquet").mkdir(exist_ok=True)
                pq.write_table(pa.table(columns), tmp_path / "parquet" / f"{name}.parquet")
            return tmp_path / "parquet"

        return make

    def file_of(self, source, item):
        return Path(source.store.url) / item.key.partition("#")[0]


class TestPhantom(SourceContract):
    has_files = False

    def open(self, folder):
        phantom = PhantomConfig(patients_per_class=2, slices_per_patient=2)
        return open_source(DataConfig(source="phantom", phantom=phantom))


def test_every_registered_source_is_tested():
    tested = {cls.name for cls in Registered.__subclasses__()} | {"phantom"}
    assert tested == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_settings_follow_from_the_registry(name):
    entry = SOURCES[name]
    given = {"path": "x", "labels": "y"}
    needed = {key: value for key, value in given.items() if key in entry.settings}
    DataConfig(source=name, **needed)
    for left_out in needed:
        with pytest.raises(InvalidConfig, match=left_out):
            DataConfig(source=name, **{k: v for k, v in needed.items() if k != left_out})
    pattern = {"patient_pattern": "(x)"}
    if "patient_pattern" in entry.settings:
        DataConfig(source=name, **needed, **pattern)
    else:
        with pytest.raises(InvalidConfig, match="patient_pattern"):
            DataConfig(source=name, **needed, **pattern)


def test_a_source_of_hounsfield_units_takes_three_windows_and_others_one():
    for name, entry in SOURCES.items():
        given = {"path": "x", "labels": "y"}
        needed = {key: value for key, value in given.items() if key in entry.settings}
        windows = {"windows": ("lung", "mediastinal", "bone")}
        if entry.is_hounsfield:
            assert len(DataConfig(source=name, **needed, **windows).levels_and_widths) == 3
        else:
            with pytest.raises(InvalidConfig, match="windows"):
                DataConfig(source=name, **needed, **windows)


def test_settings_are_read_without_loading_a_source():
    program = (
        "import sys, gemix.data.config\n"
        "sys.exit(', '.join(sorted({'pydicom', 'nibabel', 'PIL', 'cv2', 'torch'} "
        "& set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
