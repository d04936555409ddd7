"""Every way of spreading work does what the library expects of it."""

from __future__ import annotations

import os
import time

import pytest

from gemix.core.errors import DataError
from gemix.data.map_fn import here
from jobs._runtime.ray_map import RayMap

SPREADS = [
    pytest.param(here, id="here"),
    pytest.param(RayMap("test"), id="ray", marks=pytest.mark.slow),
]


@pytest.fixture
def slow_first():
    def work(number):  # in here, so that workers need not import this file
        time.sleep(0.5 if number == 0 else 0)
        return number, os.getpid()

    return work


@pytest.mark.parametrize("spread", SPREADS)
def test_results_come_in_the_order_of_the_inputs(spread, slow_first):
    results = list(spread(slow_first, range(40), "numbers"))
    assert [number for number, _ in results] == list(range(40))


@pytest.mark.parametrize("spread", SPREADS)
def test_no_work_is_no_result(spread):
    assert list(spread(abs, [], "numbers")) == []


@pytest.mark.parametrize("spread", SPREADS)
def test_an_error_of_the_library_arrives_as_it_is(spread):
    def fail(number):
        raise DataError(f"scans/{number}: mend it")

    with pytest.raises(DataError, match=r"^scans/\d: mend it$"):
        list(spread(fail, range(3), "numbers"))


@pytest.mark.slow
def test_ray_works_in_other_processes(slow_first):
    pids = {pid for _, pid in RayMap("test")(slow_first, range(8), "numbers")}
    assert os.getpid() not in pids


@pytest.mark.slow
def test_ray_keeps_opencv_to_the_core_of_the_task():
    def threads(_):
        import cv2

        return cv2.getNumThreads()

    assert set(RayMap("test")(threads, range(4), "numbers")) == {1}
