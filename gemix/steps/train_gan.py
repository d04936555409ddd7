"""Train the class-conditional GAN; an unfinished training resumes from its newest checkpoint."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any

import torch

from gemix.config import PipelineConfig
from gemix.core.device import default_device
from gemix.core.distributed import Workers
from gemix.core.errors import DataError
from gemix.data.leakage.provenance import PROVENANCE, Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.gan.checkpoints.best_snapshot import save_best_generator
from gemix.gan.checkpoints.checkpoint import TrainingSpec, check_resumable, checkpoints
from gemix.gan.checkpoints.generator_io import MARKER, load_generator, load_weights, save_generator
from gemix.gan.checkpoints.transfer import PretrainedWeights
from gemix.gan.data.batch_split import batch_parts
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.models.architecture import is_side
from gemix.gan.training.stages import inherit_conv_clamp, pretraining_spec
from gemix.io.records import to_json
from gemix.io.results import read_training
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Workspace
from gemix.steps.gan_training.cost import summarize_cost
from gemix.steps.gan_training.data import gan_architecture, open_training_data
from gemix.steps.gan_training.metrics import SnapshotEvaluator
from gemix.steps.gan_training.stage import Stage, wrap_disk_full
from gemix.steps.runtime.executor import Executor, LocalExecutor, Polling, WorkerContext
from gemix.steps.runtime.outputs import open_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.tracking import mlflow_run as tracking
from gemix.zoo import open_pretrained

log = logging.getLogger("gemix.train-gan")

PRETRAINING = "pretraining"  # directory of the unconditional stage, inside that of the GAN


def train_gan(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train on the train split of ``workspace.data`` into ``workspace.gan``.

    An unfinished training of the same settings and data is continued from its newest checkpoint.

    Returns:
        ``kimg``, ``images_per_s`` and the generator's ``checksum``.

    Raises:
        CheckpointError: if an unfinished training there is another one, or damaged.
        ConfigError: if the workers cannot share a batch.
        DataError: for images of a side that is no power of two, or if it, or the network that it
            starts from, learns from what is held out, unless ``data.allow_overlap`` is set.
    """
    executor = executor or LocalExecutor()
    data = Manifest.load(Store(workspace.data))
    # what can be told without starting workers is told here, once and without a traceback
    gan, workers = config.gan, Workers(0, config.compute.ranks)
    batch_parts(gan, workers)
    check_side(workspace.data, data)
    given = [open_pretrained(gan.init_from)] if gan.init_from else []
    spec = inherit_conv_clamp(training_spec(config, data), given)
    if not overwrite:
        unfinished = open_output(workspace.gan, MARKER, overwrite=False)
        # what goes on no longer needs the network that it started from
        spec = inherit_conv_clamp(spec, [unfinished, unfinished / PRETRAINING])
        check_resumable(unfinished, spec)
    train, *held_out = real_splits(workspace, "train", "val", "test")
    before = [Provenance(store, "the network") for store in given]
    pairs = itertools.product([train, *before], held_out)
    overlap = enforce_no_overlap("train-gan", config, pairs)
    executor.require(config.compute)
    if config.compute.gpus_per_worker:
        log.info("%s", summarize_cost(spec, config.compute.ranks))
    store = open_step(workspace.gan, MARKER, config, overwrite)
    if not checkpoints(store) or not store.exists(PROVENANCE):
        write_provenance(store, [train], before)
        if config.gan.pretrain_kimg:
            write_provenance(store / PRETRAINING, [train], before)
    with tracking.start_run(config, workspace.workdir, "train-gan") as run:
        run.set_tags(overlap.tags)
        run.log_dataset(data.digest, "data", "training")
        settings = {
            "config": config.to_mapping(),
            "workspace": workspace.workdir,
            "spec": spec,
            "run": run,
        }
        executor.train("train-gan", _train_worker, settings, config.compute, workspace.ray)
        totals = read_training(store)
        run.log_metrics({"images_per_s": totals.images_per_s})
    return to_json(totals) | {"checksum": load_generator(store).checksum}


def _train_worker(settings: dict[str, Any], context: WorkerContext) -> None:
    """Run one worker of the training."""
    config = PipelineConfig.from_mapping(settings["config"])
    workspace = Workspace(settings["workspace"])
    torch.set_num_threads(config.compute.cpus_per_worker)
    workers = Workers.from_process_group()
    data = open_training_data(
        config.gan,
        workspace.data,
        default_device(),
        context,
        readers=config.compute.cpus_per_worker,
        verbose=workers.rank == 0,
    )
    with contextlib.closing(data):
        _train_stages(config, workspace, settings, data, workers, context.polling)


def _train_stages(
    config: PipelineConfig,
    workspace: Workspace,
    settings: dict[str, Any],
    data: TrainingDataset,
    workers: Workers,
    polling: Polling,
) -> None:
    """Train the unconditional stage, where there is one, and then the conditional one."""
    store = Store(workspace.gan)
    spec, run = settings["spec"], settings["run"]

    def initial_weights() -> PretrainedWeights:
        return load_weights(open_pretrained(config.gan.init_from))

    def pretrained_weights() -> PretrainedWeights:
        folder = store / PRETRAINING
        images = data.unconditional()
        stage = Stage(folder, pretraining_spec(spec), images, workers, run, first, polling)
        state = stage.run()
        stage.finish(state)
        return PretrainedWeights.from_state(state)

    first = initial_weights if config.gan.init_from else None
    second = pretrained_weights if config.gan.pretrain_kimg else first
    stage = Stage(store, spec, data, workers, run, second, polling)
    metrics = SnapshotEvaluator(config, workspace, data, spec, workers, stage.log)
    state = stage.run(metrics.at_snapshot)
    shipped = metrics.at_end(state)
    stage.finish(state, shipped.network)
    if workers.rank == 0:
        with wrap_disk_full(store):
            if shipped.is_best:
                save_best_generator(store)
            else:
                save_generator(store, state, spec)


def check_side(url: str, data: Manifest) -> None:
    """Check the side of the images.

    Raises:
        DataError: if it is no power of two, which the networks make alone.
    """
    side = data.resolution
    if not is_side(side):
        raise DataError(
            f"{url}: images of {side} x {side} pixels; the networks make sides of a power of two "
            "from 8 on, so run gemix prepare --overwrite with such a data.resolution"
        )


def training_spec(config: PipelineConfig, data: Manifest) -> TrainingSpec:
    """Return what a new training on the train split of these data is made of."""
    return TrainingSpec(
        architecture=gan_architecture(config.gan, data),
        config=config.gan,
        classes=data.classes,
        data_digest=data.content_digest("train"),
    )
