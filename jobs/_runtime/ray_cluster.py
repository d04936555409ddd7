"""The connection to Ray: the cluster that ``RAY_ADDRESS`` names, else this machine."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import ray

from gemix.config import ComputeConfig
from gemix.core.errors import ConfigError, TransientError
from gemix.core.stop import STOP, Stopped
from jobs._runtime.command import GOMP_SPINCOUNT
from jobs._runtime.ray_logs import forward_worker_lines

# variables of the driver that its workers need
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
_PROBE_SECONDS = 10.0


def connect() -> None:
    """Join the cluster of ``RAY_ADDRESS`` (set inside ``ray job submit``), or start a local one.

    Does nothing if Ray is connected already, so that steps can be chained in one process.

    Raises:
        TransientError: if no cluster answers at ``RAY_ADDRESS``, or a local one does not start.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every line twice
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent out from beside scans
    # a placement group waits for its nodes as long as it takes (see ResourceNotice)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(24 * 3600))
    # a local Ray would start a process a core without the workers' environment, which none can use
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # logging_level is that of the whole tree; this logger announces the default of RAY_AUTH_MODE
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _probe(address)
    forward_worker_lines()
    try:
        ray.init(
            address=address or "local",
            # a dozen processes that take seconds to start, for a page whose address nobody is given
            include_dashboard=None if address else False,
            logging_level=logging.WARNING,
            runtime_env=_runtime_env(),
        )
    except SystemExit as error:  # Ray's handler of SIGTERM
        raise Stopped(signal.SIGTERM) from error
    except ConnectionError as error:
        raise _unreachable(str(address), error) from error
    except Exception as error:  # of no narrower type
        if "timed out during startup" not in str(error):
            raise
        raise TransientError(
            "Ray did not start in time, since other programs take this machine's processors or "
            "memory; run the same command again when they have ended"
        ) from error
    STOP.reinstall()  # Ray has replaced the handler of SIGTERM


def is_cluster() -> bool:
    """Return whether the nodes are those of ``RAY_ADDRESS``, which may come and go."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _probe(address: str) -> None:
    """Fail within seconds if nothing like Ray listens at an address; Ray itself tries for minutes.

    Raises:
        ConfigError: for an address of the dashboard, which is for ``ray job submit``.
        TransientError: if nothing answers.
    """
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS={address} is the address of a dashboard, for ray job submit; set it to "
            "host:port of the head (port 6379 by default), or unset it to run on this machine"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    import grpc  # what Ray's services speak

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_PROBE_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise _unreachable(address, "what listens there is not a Ray head") from error


def _unreachable(address: str, reason: object) -> TransientError:
    return TransientError(
        f"RAY_ADDRESS={address}: no Ray cluster answers ({reason}); start it, correct the address, "
        "or unset RAY_ADDRESS to run on this machine"
    )


def _runtime_env() -> dict[str, object]:
    """Return the environment of the workers, without what a submitted job has of its own.

    Ray refuses two environments that name the same variable.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    given = job.get("env_vars", {})
    variables = {"GOMP_SPINCOUNT": GOMP_SPINCOUNT}
    variables |= {name: os.environ[name] for name in FORWARDED if name in os.environ}
    if not is_cluster():  # a process for each start of the workers, to see a cloud take nodes back
        variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    missing = {name: value for name, value in variables.items() if name not in given}
    environment: dict[str, object] = {"env_vars": missing}
    if "worker_process_setup_hook" not in job:
        environment["worker_process_setup_hook"] = _worker_setup(
            logging.getLogger("gemix").getEffectiveLevel()
        )
    return environment


def _worker_setup(level: int) -> Callable[[], None]:
    """Return what every worker process runs first.

    It is nested to be pickled by value: a worker must not import it before the paths are right.
    """

    def setup() -> None:
        import importlib
        import os
        import sys
        from pathlib import Path

        import gemix
        from gemix.core.logs import configure_logging

        # Ray puts the driver's directory first on the path, where a user's own jobs.py or tune.py
        # would hide the packages of that name
        root = str(Path(gemix.__file__).resolve().parents[1])
        sys.path.insert(0, root)
        try:
            for name in ("jobs", "tune"):
                importlib.import_module(name)
        finally:
            sys.path.remove(root)
        configure_logging(level)
        import ray

        # Ray's own helpers look for a cluster on this machine, and fail where there are two
        os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)

    return setup


def worker_resources(compute: ComputeConfig) -> dict[str, float]:
    """Return what one worker asks Ray for: ``CPU`` and, with GPUs, ``GPU``.

    Raises:
        ConfigError: if this machine has not that much, or ``compute.gpus_per_worker`` is null on a
            cluster without a GPU at this moment.
    """
    has = ray.cluster_resources()
    gpus = compute.gpus_per_worker
    if gpus is None:
        if not has.get("GPU") and is_cluster():
            raise ConfigError(
                "compute.gpus_per_worker=null: the cluster has no GPU at this moment, and may get "
                "some; set it to 1 to wait for a node with a GPU, or to 0 to run on CPUs"
            )
        gpus = 1.0 if has.get("GPU") else 0.0
    wants = {"CPU": float(compute.cpus_per_worker)} | ({"GPU": float(gpus)} if gpus else {})
    for name, each in wants.items():
        if not is_cluster() and each * compute.ranks > has.get(name, 0):
            raise ConfigError(
                f"compute.workers={compute.workers} with {each:g} {name} each: this machine has "
                f"{has.get(name, 0):g}; lower compute.workers or compute.{name.lower()}s_per_worker"
            )
    return wants


def describe_resources(workers: int, resources: dict[str, float]) -> str:
    """Return ``2 workers with 1 GPU and 8 CPUs each``."""
    parts = [
        f"{resources[name]:g} {name}{'' if resources[name] == 1 else 's'}"
        for name in ("GPU", "CPU")
        if name in resources
    ]
    kit = " and ".join(parts)
    return f"1 worker with {kit}" if workers == 1 else f"{workers} workers with {kit} each"


def shutdown() -> None:
    """Leave the cluster; ends all work of this driver there."""
    if "ray" in sys.modules and ray.is_initialized():
        ray.shutdown()
