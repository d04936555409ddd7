"""What a sweep needs beside the data: a generator that nobody has trained."""

from __future__ import annotations

import torch

from gemix.config import PipelineConfig
from gemix.data.shards.manifest import Manifest
from gemix.gan.checkpoints.generator_io import save_generator
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.train_gan import training_spec

SWEEP = (
    "sweep.trials=4",
    "sweep.seeds=2",
    "sweep.fresh_seeds=2",
    "sweep.sampler=tpe",
    "sweep.methods=[softmax,onehot]",
    "classifier.epochs=2",
    "classifier.batch=8",
    "compute.gpus_per_worker=0",
)


def write_generator(config: PipelineConfig, workspace: Workspace) -> None:
    """Write a generator of random weights."""
    spec = training_spec(config, Manifest.load(Store(workspace.data)))
    state = new_state(spec.architecture, spec.config, torch.device("cpu"))
    save_generator(Store(workspace.gan), state, spec)
