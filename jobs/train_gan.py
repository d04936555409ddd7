"""Train the class-conditional GAN with Ray Train; it resumes by itself."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request
from jobs._runtime.ray_executor import RayExecutor


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="print what the training costs (operations, messages, hours by type of GPU) and end; "
        "needs neither data nor a GPU",
    )


def _run(request: Request) -> None:
    if request.options.estimate:
        from gemix.steps.gan_training.cost import describe_cost

        print(describe_cost(request.config, request.workspace))
        return
    from gemix.steps.train_gan import train_gan

    result = train_gan(
        request.config,
        request.workspace,
        executor=RayExecutor(),
        overwrite=request.overwrite,
    )
    print(
        f"{result['kimg']:.2f} kimg at {result['images_per_s']:.1f} images/s, generator in "
        f"{request.workspace.gan}"
    )


COMMAND = Command(
    name="train-gan",
    summary="Train the class-conditional StyleGAN2-ADA, or the CGAN baseline (gan.method=cgan), "
    "on the train split.",
    reads="<workdir>/data",
    writes="<workdir>/gan: checkpoints, sample grids, log.jsonl, generator.safetensors, "
    "seen.parquet (what it learned from)",
    costs="nearly all of the pipeline: minutes for demo on 2 CPU cores, GPU hours at 128 x 128; "
    "a stopped or killed run resumes from its newest checkpoint",
    sections=("gan", "metrics", "data", "tracking", "compute"),
    run=_run,
    add_options=_add_options,
    leases=("train-gan",),
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
