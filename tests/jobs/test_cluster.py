"""The steps as a cluster user runs them: ``ray job submit``, everything in a bucket."""

from __future__ import annotations

import contextlib
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

from gemix.io.storage import Store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
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


def test_every_step_is_submitted_from_bucket_to_bucket(head, bucket, tiny_overrides, tmp_path):
    """As the documents say it, with infra/runtime_env.yaml; then the pipeline finds all done.

    The directory is another one, of a user who has a jobs.py and a tune.py of his own.
    """
    address, environment = head
    runtime_env = yaml.safe_load((ROOT / "infra/runtime_env.yaml").read_text())
    names = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"]
    runtime_env["env_vars"] |= {name: os.environ[name] for name in names}
    runtime_env["env_vars"]["PYTHONPATH"] = str(ROOT)  # this checkout, where another is installed
    runtime_env["env_vars"]["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    workdir, errors = f"{bucket}/run", tmp_path / "errors.txt"
    user = tmp_path / "user"
    user.mkdir()
    for name in ("jobs.py", "tune.py"):
        (user / name).write_text("raise RuntimeError('a file of the user')")
    overrides = [*tiny_overrides, "compute.workers=1", "synthesis.methods=[softmax]"]
    common = shlex.join(["-c", "demo", "-w", workdir, *overrides])
    python = shlex.quote(sys.executable)
    steps = {
        "prepare": common,
        "verify": f"{workdir}/data",
        "check": f"{workdir}/data",
        "train_gan": common,
        "sample": f"-w {workdir} --label 1,0,0 --out {tmp_path}/samples",
        "synthesize": common,
        "train_classifier": f"{common} compute.workers=0",  # the GAN has workers of its own
        "evaluate": common,
        "report": common,
        "pipeline": common,
    }
    script = tmp_path / "steps.sh"
    lines = [f"{python} -m jobs.{step} {arguments}" for step, arguments in steps.items()]
    gemix = f"cd {user} && {shlex.quote(GEMIX)} prepare {common} && cd {tmp_path}"
    script.write_text("\n".join(["set -ex", f"exec 2>{errors}", gemix, *lines[1:]]))
    command = [RAY, "job", "submit", "--address", address]
    command += ["--runtime-env-json", json.dumps(runtime_env), "--", "sh", str(script)]
    for _ in range(20):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=1200, cwd=tmp_path
        )
        if "No available agent" not in done.stderr + done.stdout:
            break
        time.sleep(3)  # the head answers before it can take jobs
    said = errors.read_text()
    assert done.returncode == 0, said[-4000:] + done.stdout[-4000:] + done.stderr[-2000:]
    summary = Store(workdir).read_json("summary.json")
    assert [row["method"] for row in summary["results"]] == ["real", "softmax"]
    assert Store(f"{workdir}/report").exists("report.html")
    # no tracebacks, no noise of Ray or MLflow, no prefixes of workers
    ours = re.compile(r"\+ |\d\d:\d\d:\d\d [a-z][\w. -]*: ")
    # Ray's C++ part writes past Python; the switch for its level tells of itself in the same place
    ray_core = re.compile(r"\[.*core_worker\.cc.*MapWorker.*constructor arguments")
    lines = [line for line in said.splitlines() if line and not ray_core.match(line)]
    assert [line for line in lines if not ours.match(line)] == []
