"""The stages of the GPU kit run, on a CPU, and leave what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_kit_runs_here_with_tiny_networks(shared, tmp_path):
    command = [sys.executable, "-m", "tests.gpu.run", "--tiny", "--out", str(tmp_path)]
    stages = "correctness,speed,kernels,sampling,training"  # what is compiled has tests of its own
    command += ["--minutes", "20", "--only", stages, "--parity", str(shared("parity"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = {
        name: json.loads((tmp_path / f"{name}.json").read_text()) for name in stages.split(",")
    }
    checks = {row["check"]: row for row in found["correctness"]}
    assert len(checks) >= 8 and [row for row in checks.values() if not row["ok"]] == []
    assert any(row.get("images_per_s", 0) > 0 for row in found["speed"]), found["speed"]
    assert 0 <= found["kernels"][0]["idle_share"] <= 1
    assert found["sampling"][-1]["images_per_s"] > 0
    assert found["training"][-1]["kid"] > 0
    assert load_file(tmp_path / "generator.safetensors")
    assert (tmp_path / "samples.png").stat().st_size > 1000
    summary = (tmp_path / "summary.md").read_text()
    assert "## correctness" in summary and "reference numbers" in summary
