"""The spool by itself, with a store that is away, and a disk that is full."""

from __future__ import annotations

import errno
import os
import time

import pytest

from gemix.core.errors import TrackingError
from gemix.io.storage import Store
from gemix.tracking.spool import Sender


class Target:
    """Takes operations while it is up."""

    def __init__(self, up: bool = True):
        self.up, self.got = up, []

    def send(self, run_id, operations):
        if not self.up:
            raise TrackingError("MLflow store x: away; check it")
        self.got += [(run_id, operation["n"]) for operation in operations]
        return []


@pytest.fixture
def folder(tmp_path) -> Store:
    return Store(tmp_path / "mlflow-spool")


def open_sender(folder: Store, target: Target, run: str = "a") -> Sender:
    return Sender(folder, "x", run, target.send, owner=True)


def test_operations_arrive_in_their_order_and_leave_nothing(folder):
    target = Target()
    sender = open_sender(folder, target)
    for number in range(1000):
        sender.append({"n": number})
    assert sender.close(30) == 0
    assert target.got == [("a", number) for number in range(1000)]
    assert not os.path.exists(folder.url)


def test_what_an_earlier_run_left_is_sent_once(folder):
    sender = open_sender(folder, Target(up=False))
    sender.append({"n": 1})
    sender.append({"n": 2})
    assert sender.close(5) == 2
    target = Target()
    later = open_sender(folder, target, "b")
    later.adopt_others()
    later.append({"n": 3})
    deadline = time.monotonic() + 30
    while len(target.got) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert later.close(30) == 0
    assert sorted(target.got) == [("a", 1), ("a", 2), ("b", 3)]
    assert not os.path.exists(folder.url)


def test_what_is_meant_for_another_store_stays(folder):
    sender = Sender(folder, "y", "a", Target(up=False).send, owner=True)
    sender.append({"n": 1})
    assert sender.close(5) == 1
    target = Target()
    later = open_sender(folder, target, "b")
    later.adopt_others()
    time.sleep(0.3)
    assert later.close(30) == 0
    assert target.got == [] and len(folder.list(recursive=True)) == 1


def test_a_half_written_line_is_left_out(folder):
    sender = open_sender(folder, Target(up=False))
    sender.append({"n": 1})
    sender.close(5)
    (name,) = folder.list(recursive=True)
    folder.write_bytes(name, folder.read_bytes(name) + b'{"n": 2, "da')
    target = Target()
    later = open_sender(folder, target, "b")
    later.adopt_others()
    deadline = time.monotonic() + 30
    while not target.got and time.monotonic() < deadline:
        time.sleep(0.02)
    later.close(30)
    assert target.got == [("a", 1)]


def test_a_full_disk_stops_no_one_and_is_told_once(folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    target = Target()
    sender = open_sender(folder, target)
    for number in range(10):
        sender.append({"n": number})
    assert sender.close(30) == 0
    assert [number for _, number in target.got] == list(range(10))
    assert caplog.text.count("No space left") == 1
