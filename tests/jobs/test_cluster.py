"""The steps as a cluster user runs them: ``ray job submit``, everything in a bucket.

The bucket is behind a proxy that fails one request in five.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import shlex
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
import yaml
from PIL import Image

from gemix.config import load
from gemix.data.config import PhantomConfig
from gemix.data.phantom import render_slice
from gemix.data.preprocessing.windows import apply_window
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.pipeline import run_pipeline
from tests.s3_proxy import FaultyProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("cancer", "normal", "pneumonia")
RAY, GEMIX = (str(Path(sys.executable).with_name(name)) for name in ("ray", "gemix"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def head(tmp_path):
    """A Ray head that was started from a shell without our environment, with a token file.

    Yields its dashboard's address, and the environment to submit in.
    """
    port = free_port()
    token = tmp_path / "home/.ray/auth_token"
    token.parent.mkdir(parents=True)
    token.write_text(secrets.token_hex(32))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    environment["RAY_worker_niceness"] = "0"  # as in conftest.py
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
        yield address, environment | {"RAY_AUTH_MODE": "token"}
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


def put_scans(store: Store) -> None:
    """Six patients a class, four slices each, the way that class folders hold them."""
    config = PhantomConfig(slices_per_patient=4)
    for index, label in enumerate(CLASSES):
        for number in range(24):
            patient = 6 * index + number // 4  # nobody is in two classes
            pixels = render_slice(config, label, patient, number % 4, 48)
            file = io.BytesIO()
            Image.fromarray(apply_window(pixels, -500, 1400)).save(file, "PNG")
            name = f"{label}/{label}-{number // 4}-{number % 4}.png"
            store.write_bytes(name, file.getvalue())


def weights(workspace: Workspace) -> bytes:
    return Store(workspace.gan).read_bytes("generator.safetensors")


def test_steps_are_submitted_and_a_bucket_gives_what_a_disk_gives(
    head, s3_server, bucket, tiny_overrides, tmp_path
):
    """As the documents say it, with infra/runtime_env.yaml.

    The directory is another one, of a user who has a jobs.py and a tune.py of his own.
    """
    kept = [item for item in tiny_overrides if not item.startswith(("data.phantom", "synthesis.m"))]
    overrides = [
        "data.source=folder",
        r"data.patient_pattern=(\w+-\d)-",
        "synthesis.methods=[softmax]",
    ]
    overrides += kept
    for scans in (tmp_path / "scans", f"{bucket}/scans"):
        put_scans(Store(scans))
    work, calm = Workspace(f"{bucket}/run"), Workspace.at(tmp_path / "calm")
    run_pipeline(load("demo", [f"data.path={tmp_path}/scans", *overrides]), calm)  # without Ray
    with FaultyProxy(s3_server, seed=1).running() as proxy:
        submit_steps(head, proxy.url, bucket, work, overrides, tmp_path)
    assert proxy.faults.total() > 50 and len(proxy.faults) == 4
    assert proxy.faults.total() == pytest.approx(proxy.requests / 5, abs=1)

    pairs = ((work.data, calm.data), (work.synthetic("softmax"), calm.synthetic("softmax")))
    for manifest, wanted in ((Manifest.load(Store(url)) for url in pair) for pair in pairs):
        assert manifest.digest == wanted.digest and manifest.counts == wanted.counts
        assert [s.sha256 for s in manifest.shards] == [s.sha256 for s in wanted.shards]
    assert weights(work) == weights(calm)
    summary, wanted = (Store(at.workdir).read_json("summary.json") for at in (work, calm))
    assert [row["method"] for row in summary["results"]] == ["real", "softmax"]
    assert summary["results"] == wanted["results"]
    assert summary["data"] == wanted["data"] and summary["audits"] == wanted["audits"]
    assert Store(work.report).exists("report.html")


def submit_steps(head, endpoint, bucket, work, overrides, tmp_path) -> None:
    address, environment = head
    runtime_env = yaml.safe_load((ROOT / "infra/runtime_env.yaml").read_text())
    names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"]
    runtime_env["env_vars"] |= {name: os.environ[name] for name in names}
    runtime_env["env_vars"]["AWS_ENDPOINT_URL"] = endpoint
    runtime_env["env_vars"]["PYTHONPATH"] = str(ROOT)  # this checkout, where another is installed
    runtime_env["env_vars"]["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    workdir, errors = work.workdir, tmp_path / "errors.txt"
    user = tmp_path / "user"
    user.mkdir()
    for name in ("jobs.py", "tune.py"):
        (user / name).write_text("raise RuntimeError('a file of the user')")
    given = [f"data.path={bucket}/scans", *overrides, "compute.workers=1"]
    common = shlex.join(["-c", "demo", "-w", workdir, *given])
    python = shlex.quote(sys.executable)
    # what is left of the steps runs in the driver of the pipeline, which finds the others done
    steps = {
        "prepare": common,
        "train_gan": common,
        "pipeline": f"{common} compute.workers=0",  # the GAN has had workers of its own
    }
    script = tmp_path / "steps.sh"
    lines = [f"{python} -m jobs.{step} {arguments}" for step, arguments in steps.items()]
    gemix = f"cd {user} && {shlex.quote(GEMIX)} prepare {common} && cd {tmp_path}"
    script.write_text("\n".join(["set -ex", f"exec 2>{errors}", gemix, *lines[1:]]))
    command = [RAY, "job", "submit", "--address", address]
    command += ["--runtime-env-json", json.dumps(runtime_env), "--", "sh", str(script)]
    for _ in range(20):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=1400, cwd=tmp_path
        )
        if "No available agent" not in done.stderr + done.stdout:
            break
        time.sleep(3)  # the head answers before it can take jobs
    said = errors.read_text()
    assert done.returncode == 0, said[-4000:] + done.stdout[-4000:] + done.stderr[-2000:]
    # no tracebacks, no noise of Ray or MLflow, no prefixes of workers
    ours = re.compile(r"\+ |\d\d:\d\d:\d\d [a-z][\w. -]*: ")
    # Ray's C++ part writes past Python; the switch for its level tells of itself in the same place
    ray_core = re.compile(r"\[.*core_worker\.cc.*MapWorker.*constructor arguments")
    lines = [line for line in said.splitlines() if line and not ray_core.match(line)]
    assert [line for line in lines if not ours.match(line)] == []
