"""The connection to Ray: a cluster where there is one, else this machine."""

from __future__ import annotations

import logging
import os

import ray


def connect() -> None:
    """Joins the cluster of ``RAY_ADDRESS`` (set inside ``ray job submit``), or starts a local one.

    Does nothing where Ray is connected already, so that steps can be chained in one process.
    """
    if ray.is_initialized():
        return
    forwarded = {
        name: os.environ[name]
        for name in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION")
        if name in os.environ
    }
    ray.init(
        log_to_driver=True,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": forwarded} if forwarded else None,
    )
