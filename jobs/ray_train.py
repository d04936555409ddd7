"""A training of the library as a Ray Train run: workers, restarts, where Ray keeps its state."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from gemix.config import ComputeConfig
from gemix.storage import Store


def fit(
    name: str,
    worker: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    compute: ComputeConfig,
    resources: dict[str, float],
    storage: str,
) -> None:
    """Runs `worker` with `settings` in every worker process, PyTorch's process group made.

    Workers that die are started again, up to ``compute.max_failures`` times, and go on from what
    they had written.

    Args:
        resources: what each worker asks for (:func:`jobs.cluster.worker_resources`).
        storage: directory or URL where Ray keeps what it needs to restart.
    """
    store = Store(storage)
    TorchTrainer(
        worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            # a finished name would return its old result without training
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            # our connection to S3, for its endpoint, timeouts and retries
            storage_path=store.root,
            storage_filesystem=None if store.is_local else store.filesystem,
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    ).fit()
