"""The main job with scans and results in a bucket behind a proxy that fails one request in five."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from PIL import Image
from s3_proxy import FaultyProxy

from gemix.data.config import PhantomConfig
from gemix.data.phantom import render_slice
from gemix.data.preprocessing.windows import apply_window
from gemix.data.shards.manifest import Manifest
from gemix.io import s3
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from jobs._runtime import cli

pytestmark = pytest.mark.slow

CLASSES = ("cancer", "normal", "pneumonia")


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


def arguments(work: str, scans: str, overrides) -> list[str]:
    kept = [item for item in overrides if not item.startswith(("data.phantom", "synthesis.m"))]
    return [
        *("pipeline", "-c", "demo", "-w", work),
        "data.source=folder",
        f"data.path={scans}",
        r"data.patient_pattern=(\w+-\d)-",
        "synthesis.methods=[softmax]",
        *kept,
    ]


def test_a_bucket_through_faults_gives_what_a_disk_gives(
    s3_server, bucket, tiny_overrides, tmp_path
):
    for scans in (tmp_path / "scans", f"{bucket}/scans"):
        put_scans(Store(scans))
    work, calm = Workspace(f"{bucket}/result"), Workspace.at(tmp_path / "calm")
    assert cli.main(arguments(calm.workdir, f"{tmp_path}/scans", tiny_overrides)) == 0
    with FaultyProxy(s3_server, seed=1).running() as proxy:
        # in a process of its own: Ray takes its environment when it starts
        environment = {
            "AWS_ENDPOINT_URL": proxy.url,
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        }
        overrides = [*tiny_overrides, "compute.workers=1"]
        given = arguments(work.workdir, f"{bucket}/scans", overrides)
        done = subprocess.run(
            [sys.executable, "-m", "jobs._runtime.cli", *given],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert proxy.faults.total() > 50 and len(proxy.faults) == 4
    assert proxy.faults.total() == pytest.approx(proxy.requests / 5, abs=1)

    pairs = ((work.data, calm.data), (work.synthetic("softmax"), calm.synthetic("softmax")))
    for manifest, wanted in ((Manifest.load(Store(url)) for url in pair) for pair in pairs):
        assert manifest.digest == wanted.digest and manifest.counts == wanted.counts
        assert [s.sha256 for s in manifest.shards] == [s.sha256 for s in wanted.shards]
    assert weights(work) == weights(calm)
    summary, wanted = (Store(at.workdir).read_json("summary.json") for at in (work, calm))
    assert summary["results"] == wanted["results"]
    assert summary["data"] == wanted["data"]


@pytest.mark.parametrize(
    "job", ["prepare", "train-gan", "synthesize", "train-classifier", "evaluate", "pipeline"]
)
def test_a_job_whose_store_stays_down_ends_with_a_sentence(
    s3_server, bucket, tiny_overrides, tmp_path, monkeypatch, capsys, job
):
    monkeypatch.setattr(s3, "RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(s3, "SDK_RETRIES", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with FaultyProxy(s3_server).running() as proxy:
        proxy.down = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert cli.main([job, "-c", "demo", "-w", f"{bucket}/result", *tiny_overrides]) == 1
    error = capsys.readouterr().err
    assert re.search(
        rf"{bucket}/result.* cannot be (read|listed): S3 failed 3 times .*run again", error
    )
    assert "Traceback" not in error and proxy.requests == 3 * 2
