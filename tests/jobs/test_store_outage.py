"""Jobs whose bucket does not answer; tests/jobs/test_cluster.py has one that answers at times."""

from __future__ import annotations

import re

import pytest

from gemix.io import s3
from jobs._runtime import cli
from tests.s3_proxy import FaultyProxy

pytestmark = pytest.mark.slow


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
