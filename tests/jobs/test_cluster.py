"""The pipeline as a cluster user runs it: ``ray job submit``, everything in a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gemix.io.storage import Store

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def head(bucket, tmp_path):
    """A Ray head node of its own: its dashboard's address, and the environment to submit in."""
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    # sockets in Ray's directory have a path of 107 characters at most
    folder = f"{tempfile.gettempdir()}/gemix-{secrets.token_hex(3)}"
    command = [RAY, "start", "--head", "--block", "--port=0", f"--dashboard-port={port}"]
    command += ["--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats"]
    # the agents that take jobs have a fixed port, which any other Ray of this machine holds
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += [f"--ray-client-server-port={free_port()}"]
    log = (tmp_path / "head.log").open("wb")
    node = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, (tmp_path / "head.log"))
        yield address, environment
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(5)  # it writes down nothing that anybody reads
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)


def wait_for(address: str, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
        except urllib.error.HTTPError:
            return  # it answers, and wants the token
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"no Ray head at {address}:\n{log.read_text()[-2000:]}")


def test_a_submitted_pipeline_runs_from_bucket_to_bucket(head, bucket, tiny_overrides, tmp_path):
    address, environment = head
    names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"]
    variables = {name: os.environ[name] for name in names}
    variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    variables["RAY_AUTH_MODE"] = "token"
    workdir = f"{bucket}/run"
    overrides = [*tiny_overrides, "compute.workers=1", "synthesis.methods=[softmax]"]
    command = [RAY, "job", "submit", "--address", address]
    command += ["--runtime-env-json", json.dumps({"env_vars": variables}), "--"]
    command += [sys.executable, "-m", "jobs.pipeline", "-c", "demo", "-w", workdir, *overrides]
    for _ in range(20):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path
        )
        if "No available agent" not in done.stderr + done.stdout:
            break
        time.sleep(3)  # the head answers before it can take jobs
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = Store(workdir).read_json("summary.json")
    assert [row["method"] for row in summary["results"]] == ["real", "softmax"]
    assert summary["registered_model"]["version"]
    assert Store(f"{workdir}/report").exists("report.html")
