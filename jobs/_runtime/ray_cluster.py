"""The connection to Ray: a cluster where there is one, else this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import ray
from ray.exceptions import RayTaskError
from ray.train import TrainingFailedError

from gemix.config import ComputeConfig
from gemix.core.errors import ConfigError, GemixError

# What the processes of a job need of the environment of whoever started it.
FORWARDED = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_REGION",
    "GOMP_SPINCOUNT",
)


def connect() -> None:
    """Joins the cluster of ``RAY_ADDRESS`` (set inside ``ray job submit``), or starts a local one.

    Does nothing where Ray is connected already, so that steps can be chained in one process.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every line twice
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody calls out from beside scans
    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    # OpenMP threads that spin for long while they wait slow down a training beside anything else;
    # those that never spin slow down small networks
    environment.setdefault("GOMP_SPINCOUNT", "20000")
    # a submitted job brings an environment of its own (infra/runtime_env.yaml), and Ray refuses a
    # second one that names the same variables
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    ray.init(
        logging_level=logging.WARNING,
        runtime_env=None if submitted else {"env_vars": environment},
    )


def worker_resources(compute: ComputeConfig) -> dict[str, float]:
    """What one worker asks Ray for: ``CPU`` and, where there are any, ``GPU``.

    Raises:
        ConfigError: if this machine alone is used and has not that much; Ray would wait for ever.
    """
    has = ray.cluster_resources()
    gpus = compute.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if has.get("GPU") else 0.0
    wants = {"CPU": float(compute.cpus_per_worker)} | ({"GPU": gpus} if gpus else {})
    for name, each in wants.items():
        if "RAY_ADDRESS" not in os.environ and each * compute.workers > has.get(name, 0):
            raise ConfigError(
                f"compute.workers={compute.workers} with {each:g} {name} each: this machine has "
                f"{has.get(name, 0):g}; lower compute.workers or compute.{name.lower()}s_per_worker"
            )
    return wants


def find_user_error(error: BaseException | None) -> GemixError | None:
    """The error of gemix, if there is one, inside what Ray wraps around those of its processes."""
    if error is None or isinstance(error, GemixError):
        return error
    inner = [error.__cause__]
    if isinstance(error, RayTaskError):
        inner.append(error.cause)
    if isinstance(error, TrainingFailedError):
        inner.append(getattr(error, "controller_failure", None))
        inner.append(find_worker_user_error(getattr(error, "worker_failures", {})))
    return next((found for found in map(find_user_error, inner) if found), None)


def find_worker_user_error(failures: Mapping[int, BaseException]) -> GemixError | None:
    """The first error of gemix among those of Ray Train's workers, by rank."""
    # Ray keeps the original beside its traceback, in a wrapper without a public name
    originals = (getattr(failure, "_base_exc", failure) for failure in failures.values())
    return next((found for found in map(find_user_error, originals) if found), None)
