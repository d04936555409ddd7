"""Kernels are used where they run; elsewhere the reason is logged."""

from __future__ import annotations

import pytest
import torch

from gemix.core.triton_kernels import load_kernels


def fails(error):
    def run_once(kernels):
        raise error

    return run_once


def test_kernels_that_run_are_used():
    called = []
    assert load_kernels("math", called.append, "sums are taken").pi > 3
    assert len(called) == 1


@pytest.mark.parametrize(
    ("name", "run_once", "reason"),
    [
        ("no_such_module", print, "No module named 'no_such_module'"),
        ("math", fails(RuntimeError("no C compiler\nmore")), "no C compiler"),
        ("math", fails(KeyError()), "KeyError"),
    ],
)
def test_others_are_not_and_the_log_says_why(name, run_once, reason, caplog):
    assert load_kernels(name, run_once, "sums are taken") is None
    said = f"sums are taken without Triton, which is slower: {reason}"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_full_memory_is_no_reason_to_go_on_without():
    with pytest.raises(torch.OutOfMemoryError):
        load_kernels("math", fails(torch.OutOfMemoryError("full")), "sums are taken")
