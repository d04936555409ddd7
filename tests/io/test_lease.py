"""One process at a time: leases on a disk and in a bucket."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gemix.core.errors import LeaseHeldError
from gemix.io import lease
from gemix.io.lease import Lease
from gemix.io.storage import Store


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "run")
    return Store(f"{request.getfixturevalue('bucket')}/run")


def hold_for_ever(url: str, ready) -> None:
    with Lease(Store(url), "train-gan"):
        ready.set()
        time.sleep(600)


def rewrite(store: Store, **changes: object) -> None:
    (name,) = store.list()
    store.write_json(name, store.read_json(name) | changes)


def test_a_lease_is_refused_while_it_is_held_and_free_afterwards(store):
    with Lease(store, "train-gan"):
        with (
            pytest.raises(LeaseHeldError, match=rf"{store.url}: in use by train-gan .*since "),
            Lease(store, "train-gan"),
        ):
            pass
        with Lease(store, "evaluate"):
            pass
    assert store.list() == []
    with Lease(store, "train-gan"):
        pass


def test_the_file_that_the_message_names_breaks_the_lease(store):
    with Lease(store, "train-gan"):
        with pytest.raises(LeaseHeldError) as caught, Lease(store, "train-gan"):
            pass
        path = re.search(r"delete (\S+)$", str(caught.value))[1]
        store.delete(path.removeprefix(f"{store.url}/"))
        other = Lease(store, "train-gan")
        other.__enter__()
    assert len(store.list()) == 1  # the first one leaves that of the second
    other.__exit__()
    assert store.list() == []


def test_of_many_that_start_at_once_one_gets_the_lease(store):
    def attempt(_: int) -> bool:
        try:
            with Lease(store, "train-gan"):
                time.sleep(1)
                return True
        except LeaseHeldError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_killed_process_of_this_host_holds_nothing(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, store = spawn.Event(), Store(tmp_path)
    process = spawn.Process(target=hold_for_ever, args=(store.url, ready))
    process.start()
    assert ready.wait(60)
    with (
        pytest.raises(LeaseHeldError, match=f"process {process.pid} on"),
        Lease(store, "train-gan"),
    ):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Lease(store, "train-gan"):
        assert len(store.list()) == 1


def test_a_later_process_of_the_same_number_is_another_one(tmp_path):
    store = Store(tmp_path)
    with Lease(store, "train-gan"):
        rewrite(store, started="1", token="of another")
        with Lease(store, "train-gan"):
            pass


@pytest.mark.parametrize(("age", "alive"), [(60, True), (lease.EXPIRY_SECONDS + 1, False)])
def test_a_lease_of_another_host_ends_when_it_is_not_renewed(store, age, alive):
    holder = Lease(store, "train-gan").holder
    values = {**vars(holder), "host": "elsewhere", "renewed": time.time() - age}
    store.write_json("train-gan.lease-000007.json", values)
    if alive:
        with pytest.raises(LeaseHeldError, match="on elsewhere"), Lease(store, "train-gan"):
            pass
    else:
        with Lease(store, "train-gan"):
            assert store.list() == ["train-gan.lease-000008.json"]


def test_a_held_lease_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    with Lease(store, "train-gan") as held:
        time.sleep(0.5)
        (name,) = store.list()
        values = json.loads(store.read_bytes(name))
    assert values["renewed"] > held.holder.since + 0.2
    assert values["host"] == socket.gethostname() and values["pid"] == os.getpid()


def test_a_deleted_lease_is_not_renewed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    with Lease(store, "train-gan"):
        store.clear(store.list()[0])
        time.sleep(0.3)
        assert store.list() == []
    assert "was deleted" in caplog.text
