from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from dicom_files import (
    CANARY,
    SALT,
    assert_no_canary,
    write,
    write_archive,
)
from s3_proxy import FaultyProxy

from gemix import s3
from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_here
from gemix.data.sources.dicom import DicomSource
from gemix.data.sources.dicom_header import read_headers
from gemix.data.sources.items import Item
from gemix.errors import DataError, StoreError
from gemix.storage import Store


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DicomSource]:
    """Writes an archive of patients named in full, some slices each, and its label file."""
    return functools.partial(write_archive, tmp_path / "archive")


def test_nothing_of_headers_or_paths_is_written(make, tmp_path, capfd, caplog):
    source = make()
    root = Path(source.store.url)
    write(root / f"{CANARY} bad", PatientID=f"{CANARY}-0", InstanceNumber=70, RescaleSlope=None)
    write(root / f"{CANARY} scout", InstanceNumber=71, ImageType=["ORIGINAL", "LOCALIZER"])
    write(root / f"{CANARY} other", PatientID=f"{CANARY}-unknown", InstanceNumber=72)
    (root / f"{CANARY}.txt").write_text(CANARY)
    (root / f"{CANARY}.dcm").write_text(CANARY)
    config = DataConfig(source="folder", path=str(root), resolution=32, max_bad_fraction=0.1)
    store = Store(tmp_path / "prepared")
    with caplog.at_level(logging.DEBUG):
        manifest = prepare_here(source, config, store)
    written = store.list(recursive=True)
    assert {"manifest.json", "quarantine.json", "contact_sheet.png"} < set(written)
    shards = [name for name in written if name.endswith(".parquet")]
    assert len(shards) >= 3
    for name in written:
        assert_no_canary(name)
        assert_no_canary(store.read_bytes(name).decode("latin-1"))
    for name in shards:
        table = pq.read_table(Path(store.url) / name)
        assert_no_canary(str(table.schema.metadata))
        for column in table.column_names:
            for value in table[column].to_pylist():
                as_bytes = value if isinstance(value, bytes) else str(value).encode()
                assert_no_canary(as_bytes.decode("latin-1"))
        assert set(table["patient"].to_pylist()) <= {item.group for item in source.list().items}
    assert len(json.loads(store.read_bytes("quarantine.json"))) == 2
    assert manifest.images() == 24
    assert_no_canary(" ".join(manifest.origin["notes"]))
    assert_no_canary("".join(capfd.readouterr()) + caplog.text)


def test_errors_name_no_patient(make, tmp_path):
    source = make(patients=1, slices=1)
    labels = Path(source.store.url) / "labels.csv"
    labels.write_text("patient,class\nunknown,a\nJANE,b\n")
    with pytest.raises(DataError, match=r"no labelled axial CT slice.*PatientID") as caught:
        source.list()
    assert_no_canary(str(caught.value))
    assert "JANE" not in str(caught.value)
    labels.write_text(f"patient,class\n{CANARY}-0,a\nJANE,b\n")
    with pytest.raises(DataError, match="slices of class 'a' alone") as caught:
        source.list()
    assert_no_canary(str(caught.value))


@pytest.mark.parametrize("state", ["forbidden", "down"])
def test_a_store_that_refuses_or_fails_is_told_without_the_path(
    s3_server, bucket, monkeypatch, state
):
    name = f"{CANARY}^Doe (F) 19511231/{CANARY}1"
    url = f"{bucket}/archive"
    Store(url).write_bytes(name, b"x")
    remedy = {"forbidden": "credentials .*must be valid and allow", "down": "run again"}[state]
    monkeypatch.setattr(s3, "WAITS", ())
    with FaultyProxy(s3_server, faults=()).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        if state == "down":
            proxy.down = True
        else:
            proxy.forbidden = {bucket.removeprefix("s3://")}
        source, item = DicomSource(url, "labels.csv"), Item(key="x", class_index=0, location=name)
        for read in (
            lambda: source.load(item),
            lambda: read_headers(Store(url), "patient", [name]),
        ):
            wanted = rf"data\.path {url}: a file below it cannot be read.*{remedy}"
            with pytest.raises(StoreError, match=wanted) as caught:
                read()
            assert "AWS Error" in str(caught.value)
            assert_no_canary("".join(traceback.format_exception(caught.value)))


def test_a_folder_without_permission_is_told_without_its_name(make, monkeypatch):
    source = make(patients=1, slices=1)
    refused, real = f"{source.store.url}/{CANARY}^Doe 0", os.scandir

    def guarded(path="."):
        if os.fspath(path) == refused:  # who runs the tests may be allowed to read anything
            raise PermissionError(13, "Permission denied", refused)
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=r"data\.path .*denied.*mend its permissions") as caught:
        source.list()
    assert_no_canary("".join(traceback.format_exception(caught.value)))


def test_warnings_and_log_lines_of_pydicom_are_silent(make, tmp_path, capfd, caplog):
    source = make(patients=1, slices=1)
    path = Path(source.store.url) / f"{CANARY}^Doe 0" / f"{CANARY}0"
    bad_uid = f"{CANARY}_no_uid"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path, PatientID=f"{CANARY}-0", StudyInstanceUID=bad_uid, SeriesInstanceUID=bad_uid)
    caplog.clear()
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pydicom.dcmread(path).SeriesInstanceUID  # noqa: B018
        assert CANARY in str(caught[0].message)
        caught.clear()
        caplog.clear()
        items = source.list().items
        source.load(items[0])
    assert (len(items), len(caught), caplog.text) == (2, 0, "")
    assert capfd.readouterr() == ("", "")


def test_the_same_secret_gives_the_same_keys_and_another_others(make, monkeypatch):
    source = make()
    first = source.list()
    again = pickle.loads(pickle.dumps(source))
    assert SALT.encode() not in pickle.dumps(source)
    assert again.list() == first
    monkeypatch.setenv("GEMIX_PATIENT_SALT", SALT[::-1])
    other = source.list()
    for name in ("key", "group"):
        before, after = ({getattr(i, name) for i in listing.items} for listing in (first, other))
        assert len(before) == len(after) and not before & after


@pytest.mark.parametrize(("value", "state"), [(None, "not set"), ("x" * 15, "shorter than 16")])
def test_a_secret_is_needed(make, monkeypatch, value, state):
    monkeypatch.delenv("GEMIX_PATIENT_SALT")
    if value:
        monkeypatch.setenv("GEMIX_PATIENT_SALT", value)
    with pytest.raises(DataError, match=rf"{state}.*export GEMIX_PATIENT_SALT=\$\(openssl"):
        make(patients=1, slices=1).list()
