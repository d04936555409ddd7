"""A few images of given seeds and one label, to look at."""

from __future__ import annotations

import argparse
import io
import re
import sys
from typing import get_args

import numpy as np

from gemix.core.errors import ConfigError
from gemix.core.png import encode_png, tile
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.gan.config import NoiseMode, SamplingConfig
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store, open_output
from gemix.labels import check_labels
from jobs._runtime.command import Command, Request

GRID = "grid.png"


def sample(
    gan_url: str,
    out_url: str,
    *,
    seeds: list[int],
    label: list[float] | None,
    config: SamplingConfig,
    overwrite: bool = False,
) -> np.ndarray:
    """Writes ``seed<n>.png`` each, ``images.npz`` and a grid.

    Args:
        gan_url: directory with a finished generator.
        label: one weight a class, summing to 1; None for a generator without classes.

    Returns:
        uint8 [N, C, H, W].

    Raises:
        CheckpointError: without a generator.
        ConfigError: for a generator with classes and no label, or the other way round.
        DataError: for a label that is none.
    """
    generator = load_generator(Store(gan_url))
    theta = _soft_label(generator, label)
    store = open_output(out_url, GRID, overwrite)
    images = sample_images(generator.network, seeds, theta.repeat(len(seeds), axis=0), config)
    for seed, image in zip(seeds, images, strict=True):
        store.write_bytes(f"seed{seed:010d}.png", encode_png(tile(image[None], 1)))
    archive = io.BytesIO()
    np.savez_compressed(archive, images=images, seeds=np.array(seeds), label=theta[0])
    store.write_bytes("images.npz", archive.getvalue())
    columns = max(c for c in range(1, 9) if len(seeds) % c == 0)
    store.write_bytes(GRID, encode_png(tile(images, columns)))
    return images


def _soft_label(generator: GeneratorBundle, label: list[float] | None) -> np.ndarray:
    classes = generator.classes
    if not classes:
        if label is not None:
            raise ConfigError("--label: the generator has no classes; leave it out")
        return np.zeros((1, 0), np.float32)
    if label is None:
        raise ConfigError(
            f"--label is missing: give one weight for each of the classes {', '.join(classes)}"
        )
    return check_labels(np.array(label), len(classes))


def parse_seeds(text: str) -> list[int]:
    """Seeds such as ``0-7`` or ``1,5,9-11``.

    Raises:
        ConfigError: for anything else, or seeds outside 0 to 2**32 - 1.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise ConfigError(f"--seeds {text}: write them as 0-7 or 1,5,9")
        low, high = int(match[1]), int(match[2] or match[1])
        seeds += range(low, high + 1)
    if not seeds or max(seeds) >= 2**32:
        raise ConfigError(f"--seeds {text}: give one or more seeds from 0 to {2**32 - 1}")
    return seeds


def _parse_label(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--label {text}: write one weight a class, as 0.7,0.2,0.1") from error


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", default="0-7", help="as 0-7 or 1,5,9 (default: %(default)s)")
    parser.add_argument(
        "--label",
        help="one weight a class, summing to 1, as 0.7,0.2,0.1; none if there are no classes",
    )
    parser.add_argument("--truncation", type=float, default=1.0, help="psi, 0 to 1 (default: 1)")
    parser.add_argument(
        "--noise",
        default="const",
        choices=get_args(NoiseMode),
        help="random is drawn from the image's own seed, in the public tool anew in each run "
        "(default: %(default)s)",
    )
    parser.add_argument("--gan", help="directory of the generator (default: <workdir>/gan)")
    parser.add_argument("--out", help="where to write (default: <workdir>/samples)")


def _run(request: Request) -> None:
    options, layout = request.options, request.layout
    out = options.out or f"{layout.workdir}/samples"
    images = sample(
        options.gan or layout.gan,
        out,
        seeds=parse_seeds(options.seeds),
        label=None if options.label is None else _parse_label(options.label),
        config=SamplingConfig(truncation_psi=options.truncation, noise_mode=options.noise),
        overwrite=request.overwrite,
    )
    print(f"sample: {len(images)} images in {out}")


COMMAND = Command(
    name="sample",
    summary="Makes images of given seeds and one soft label; seeds mean what they mean in the "
    "public StyleGAN2-ADA.",
    reads="<workdir>/gan",
    writes="<workdir>/samples: a PNG a seed, grid.png, images.npz",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
