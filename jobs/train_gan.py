"""Trains the class-conditional StyleGAN2-ADA with Ray Train; resumes by itself."""

from __future__ import annotations

import sys
from typing import Any

import ray.train
import torch

from gemix import tracking
from gemix.config import PipelineConfig
from gemix.data.manifest import Manifest
from gemix.data.shards import read_images
from gemix.gan.checkpoint import Origin, check_resumable, resume_or_start, save_checkpoint
from gemix.gan.dataset import TrainingImages
from gemix.gan.device import default_device
from gemix.gan.distributed import Workers
from gemix.gan.generator import Architecture
from gemix.gan.trained import MARKER, load_generator, save_generator
from gemix.gan.training import train
from gemix.storage import Store, open_output
from jobs.cluster import connect, worker_resources
from jobs.command import Command, Request
from jobs.gan_progress import TrainingLog
from jobs.layout import Layout
from jobs.outputs import open_step
from jobs.ray_train import fit


def train_gan(config: PipelineConfig, layout: Layout, *, overwrite: bool = False) -> dict[str, Any]:
    """Trains on the train split of ``layout.data`` into ``layout.gan``.

    An unfinished training of the same settings and data is continued from its newest checkpoint.

    Returns:
        ``kimg``, ``images_per_s`` and the generator's ``checksum``.
    """
    connect()
    resources = worker_resources(config.compute)
    data = Manifest.load(Store(layout.data))
    # what can be told without starting workers is told here, once and without a traceback
    Workers(0, config.compute.workers).positions(config.gan.batch, config.gan.mbstd_group_size)
    if not overwrite:
        unfinished = open_output(layout.gan, MARKER, overwrite=False)
        check_resumable(unfinished, origin_of(config, data))
    store = open_step(layout.gan, MARKER, config, overwrite)
    with tracking.start_run(config, layout.workdir, "train-gan") as run:
        run.log_dataset(data.digest, "data", "training")
        settings = {"config": config.to_mapping(), "layout": layout.workdir, "run": run}
        fit("train-gan", _train_worker, settings, config.compute, resources, layout.ray)
        result = store.read_json("training.json")
        run.log_metrics({"images_per_s": result["images_per_s"]})
    return result | {"checksum": load_generator(store).checksum}


def _train_worker(settings: dict[str, Any]) -> None:
    """One worker: the library's loop between reading shards and writing checkpoints."""
    config = PipelineConfig.from_mapping(settings["config"])
    layout = Layout(settings["layout"])
    store = Store(layout.gan)
    torch.set_num_threads(config.compute.cpus_per_worker)
    real = read_images([layout.data], "train")
    origin = origin_of(config, Manifest.load(Store(layout.data)))
    device, workers = default_device(), Workers.current()
    state = resume_or_start(store, origin, device)
    data = TrainingImages(real.images, real.soft_labels, config.gan.seed, device)
    log = TrainingLog(store, origin, settings["run"]) if workers.rank == 0 else None
    snapshot = max(1, round(config.gan.snapshot_kimg * 1000 / config.gan.batch))

    def on_step(state, values):
        if log:
            log.step(state, values)
            if state.step % snapshot == 0:
                save_checkpoint(store, state, origin)
                log.snapshot(state)

    if log:
        log.start(state)
    train(state, data, config.gan, workers=workers, on_step=on_step)
    if log:
        log.finish(state)
        save_checkpoint(store, state, origin)
        save_generator(store, state, origin)
    ray.train.report({"kimg": state.step * config.gan.batch / 1000})


def origin_of(config: PipelineConfig, data: Manifest) -> Origin:
    """What a training on the train split of these data is made of."""
    gan = config.gan
    return Origin(
        architecture=Architecture(
            resolution=data.resolution,
            img_channels=data.channels,
            label_dim=len(data.classes),
            z_dim=gan.z_dim,
            w_dim=gan.w_dim,
            mapping_layers=gan.mapping_layers,
            d_mapping_layers=gan.mapping_layers,
            channel_base=gan.channel_base,
            channel_max=gan.channel_max,
            mbstd_group_size=gan.mbstd_group_size,
        ),
        config=gan,
        classes=data.classes,
        data_digest=data.content_digest("train"),
    )


def _run(request: Request) -> None:
    result = train_gan(request.config, request.layout, overwrite=request.overwrite)
    print(
        f"train-gan: {result['kimg']:.2f} kimg at {result['images_per_s']:.1f} images/s, "
        f"generator in {request.layout.gan}"
    )


COMMAND = Command(
    name="train-gan",
    summary="Trains the class-conditional StyleGAN2-ADA on the train split.",
    reads="<workdir>/data",
    writes="<workdir>/gan: checkpoints, sample grids, log.jsonl, generator.safetensors",
    costs="nearly all of the pipeline: minutes for demo on 2 CPU cores, GPU hours at 128 x 128; "
    "a killed run goes on from its newest checkpoint",
    run=_run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
