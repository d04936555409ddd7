"""Run programs in Triton's interpreter, which computes kernels for GPUs on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run_interpreted(program: str) -> None:
    """Run a Python program in a process whose Triton interprets; fail with what it says."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
