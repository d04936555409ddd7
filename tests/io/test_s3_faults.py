"""A store behind a proxy that fails one request in five, stays down, hangs or refuses."""

from __future__ import annotations

import io
import os
import pickle
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.core.errors import DataError, StoreAccessError, StoreError
from gemix.core.png import encode_png
from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.scan import InvalidImageError
from gemix.data.sources import open_source
from gemix.data.sources.files import list_files, load_image
from gemix.io import s3
from gemix.io.storage import Store, open_output
from tests import s3_proxy
from tests.s3_proxy import FaultyProxy

OPERATIONS = {
    "exists": lambda store: store.exists("x"),
    "size": lambda store: store.size("x"),
    "list": lambda store: store.list(recursive=True),
    "read_bytes": lambda store: store.read_bytes("x"),
    "read_head": lambda store: store.read_head("x", 1),
    "read_columns": lambda store: store.read_columns("x", ["a"]),
    "write_bytes": lambda store: store.write_bytes("x", b"2"),
    "create": lambda store: store.create("y", b"2"),
    "delete": lambda store: store.delete("x"),
    "open_output": lambda store: open_output(store.url, "x", overwrite=False),
}


@pytest.fixture
def behind(s3_server, bucket, monkeypatch):
    """Puts a proxy in front of the server; the bucket's URL stays."""
    with FaultyProxy(s3_server, faults=()).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(s3, "RETRY_DELAYS", (0.01, 0.01))
        yield proxy


def parquet() -> bytes:
    file = io.BytesIO()
    table = pa.table({"a": range(3000), "b": range(3000)})
    pq.write_table(table, file, row_group_size=500)
    return file.getvalue()


@pytest.mark.parametrize("kind", s3_proxy.FAULTS)
def test_every_operation_ends_as_if_nothing_had_failed(behind, bucket, kind):
    behind.kinds = (kind,)
    store = Store(f"{bucket}/set")
    contents = {f"{number % 3}/{number:02d}": os.urandom(1 + 997 * number) for number in range(8)}
    for name, data in contents.items():
        store.write_bytes(name, b"older")
        store.write_bytes(name, data)
    store.write_bytes("table", parquet())
    assert store.list(recursive=True) == sorted([*contents, "table"])
    for name, data in contents.items():
        assert store.exists(name) and store.size(name) == len(data)
        assert store.read_bytes(name) == data
        assert store.read_head(name, 100) == data[:100]
    assert store.read_columns("table", ["b"])["b"].to_pylist() == list(range(3000))
    store.clear("table")
    assert store.list(recursive=True) == [] and not store.exists("table")
    assert behind.faults[kind] == pytest.approx(behind.requests / 5, abs=1)


@pytest.mark.slow
def test_an_object_of_several_parts_arrives_whole(behind, bucket):
    behind.kinds = s3_proxy.FAULTS
    data = os.urandom(25_000_000)
    store = Store(bucket)
    for _ in range(3):
        store.write_bytes("big", data)
        assert store.read_bytes("big") == data
    assert behind.faults


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_stays_down_is_asked_so_often_and_no_more(
    behind, bucket, monkeypatch, operation
):
    monkeypatch.setattr(s3, "SDK_RETRIES", 1)
    behind.down = True
    with pytest.raises(StoreError, match=rf"{bucket}.* cannot be .*S3 failed 3 times.*run again"):
        OPERATIONS[operation](Store(bucket))
    assert behind.requests == 3 * 2


def test_a_store_that_comes_back_in_time_is_no_failure(behind, bucket, monkeypatch):
    store = Store(bucket)
    store.write_bytes("x", b"1")
    behind.down = True
    monkeypatch.setattr(time, "sleep", lambda _: setattr(behind, "down", False))
    assert store.read_bytes("x") == b"1"


def test_a_request_that_hangs_is_given_up_and_sent_again(behind, bucket, monkeypatch):
    monkeypatch.setattr(s3, "SILENCE_TIMEOUT", 1.0)
    monkeypatch.setattr(s3_proxy, "SLOW", 60)
    store = Store(bucket)
    store.write_bytes("x", b"1")
    behind.kinds = ("slow",)
    began = time.monotonic()
    assert [store.read_bytes("x") for _ in range(5)] == [b"1"] * 5
    assert behind.faults["slow"] >= 2 and time.monotonic() - began < 30


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_permission_is_told_at_once_with_what_to_grant(behind, bucket, operation):
    behind.forbidden.add(bucket.removeprefix("s3://"))
    with pytest.raises(StoreAccessError, match=rf"{bucket}.*s3:ListBucket, GetObject, PutObject"):
        OPERATIONS[operation](Store(bucket))
    assert behind.requests == 1


def test_no_server_is_told_with_the_variable_to_mend(bucket, monkeypatch):
    monkeypatch.setattr(s3, "RETRY_DELAYS", ())
    monkeypatch.setattr(s3, "SDK_RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"x cannot be read: .*AWS_ENDPOINT_URL"):
        Store(bucket).read_bytes("x")


def test_writing_to_no_bucket_says_so_at_once(behind, bucket):
    with pytest.raises(StoreAccessError, match="no such bucket: create it"):
        Store(f"{bucket}-not").write_bytes("x", b"1")
    assert behind.requests == 1


def test_an_empty_or_absent_bucket_is_no_source(bucket):
    for url in (bucket, f"{bucket}-not"):
        with pytest.raises(DataError, match=rf"{url}: no such bucket, or no object there"):
            list_files(Store(url))


def test_names_that_differ_in_case_only_and_names_of_other_scripts_are_files_of_their_own(bucket):
    names = ["a/scan 2.png", "a/Scan 2.png", "a/skan %20#?.png", "a/срез.png", "a/断面.png"]
    store = Store(f"{bucket}/Größe 1")
    for name in names:
        store.write_bytes(name, name.encode())
    assert sorted(list_files(store).names) == sorted(names)
    assert [store.read_bytes(name).decode() for name in names] == names


def test_an_image_is_not_called_bad_because_the_store_was_away(behind, bucket, monkeypatch):
    with pytest.raises(InvalidImageError, match=r"gone\.png: cannot be read"):
        load_image(Store(bucket), "gone.png")
    monkeypatch.setattr(s3, "SDK_RETRIES", 0)
    behind.down = True
    with pytest.raises(StoreError):
        load_image(Store(bucket), "gone.png")


def test_an_image_takes_two_requests_and_a_part_some_twenty(behind, bucket):
    """One that asks for its size and one for its bytes; README reckons with these numbers."""
    scans, count = Store(f"{bucket}/scans"), 60
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        name = f"{'ab'[number % 2]}/P{number // 2}_{number}.png"
        scans.write_bytes(name, encode_png(pixels[..., None]))
    before = behind.requests
    load_image(scans, name)
    assert behind.requests - before == 2

    pattern = {"patient_pattern": "(P[0-9]+)_", "resolution": 16}
    config = DataConfig(source="folder", path=scans.url, **pattern)
    before = behind.requests
    prepare_serial(open_source(config), config, Store(f"{bucket}/set"))
    parts = 2  # of at least 32 images
    beside = 35  # requests for the listing, three shards with their notes and the small files
    assert behind.requests - before <= 2 * count + 20 * parts + beside


def test_credentials_do_not_travel_with_a_pickled_store(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary-token")
    store = Store(bucket)
    store.write_bytes("x", b"1")
    for thing in (store, store.filesystem):
        assert b"canary" not in pickle.dumps(thing)
    again = pickle.loads(pickle.dumps(store.filesystem))
    assert again.get_file_info(store.path("x")).size == 1


def test_a_pickled_file_system_keeps_its_retries(behind, bucket):
    again = pickle.loads(pickle.dumps(Store(bucket).filesystem))
    behind.down = True
    with pytest.raises(OSError, match="503"):
        again.get_file_info(f"{bucket.removeprefix('s3://')}/x")
    assert behind.requests == 1 + s3.SDK_RETRIES


@pytest.mark.parametrize(
    "url", ["s3://key:canary@bucket/x", "s3://canary@bucket", "s3://key:canary/x@bucket/x"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(DataError, match="standard AWS chain") as caught:
        Store(url)
    assert "canary" not in str(caught.value)


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(DataError, match="s3://bucket/path"):
        Store("s3:///x")
