"""Sample images of given seeds and one label."""

from __future__ import annotations

import argparse
import re
import sys
from typing import get_args

from gemix.core.errors import ConfigError
from gemix.gan.config import PRECISIONS, NoiseMode, SamplingConfig
from jobs._runtime.command import Command, Request


def parse_seeds(text: str) -> list[int]:
    """Parse seeds such as ``0-7`` or ``1,5,9-11``.

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
    parser.add_argument(
        "--precision",
        default=SamplingConfig().precision,
        choices=PRECISIONS,
        help="of convolutions; the public tool's is float32 (default: %(default)s)",
    )
    parser.add_argument("--gan", help="directory of the generator (default: <workdir>/gan)")
    parser.add_argument("--out", help="where to write (default: <workdir>/samples)")


def _run(request: Request) -> None:
    from gemix.steps.sample import sample

    options, workspace = request.options, request.workspace
    out = options.out or f"{workspace.workdir}/samples"
    images = sample(
        options.gan or workspace.gan,
        out,
        seeds=parse_seeds(options.seeds),
        label=None if options.label is None else _parse_label(options.label),
        config=SamplingConfig(
            truncation_psi=options.truncation,
            noise_mode=options.noise,
            precision=options.precision,
        ),
        overwrite=request.overwrite,
    )
    print(f"{len(images)} images in {out}")


COMMAND = Command(
    name="sample",
    summary="Make images of given seeds and one soft label; seeds mean what they mean in the "
    "public StyleGAN2-ADA.",
    reads="<workdir>/gan",
    writes="<workdir>/samples: a PNG a seed, grid.png, images.npz",
    costs="seconds",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
