"""Write a page to explore what a generator makes of soft labels."""

from __future__ import annotations

import datetime
import itertools
import logging
from collections.abc import Sequence

import numpy as np

from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError
from gemix.core.progress import Progress
from gemix.gan.checkpoints.generator_io import GeneratorBundle, load_generator
from gemix.gan.sampling import label_path, sample_images
from gemix.io.storage import Store, open_output
from gemix.io.workspace import Workspace
from gemix.report.explore import ExploreContent, latent_of, render_explore, simplex_rows
from gemix.synthesis.teacher import Teachers

log = logging.getLogger("gemix.explore")

PAGE = "explore.html"
MOST_FRAMES = 5000
_LARGE = 6 * 2**20  # bytes that open slowly on a phone


def explore(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    seeds: Sequence[int],
    steps: int = 11,
    gan: str | None = None,
    out: str | None = None,
    overwrite: bool = False,
) -> str:
    """Write ``explore.html``: the class simplex and paths between classes, from several latents.

    Images are those of ``config.synthesis``: of the same seed, label and settings as ``gemix
    sample`` makes them. With a teacher, what it sees stands beside what was asked for.

    Args:
        seeds: one latent each.
        steps: images on a path between two classes; the triangle of three classes has half as many
            on a side.
        gan: directory of the generator; None for that of the work directory.
        out: directory of the page; None for ``explore`` in the work directory.

    Returns:
        Where the page is.

    Raises:
        CheckpointError: without a generator.
        DataError: for a teacher of other classes or images.
        ConfigError: for a generator with fewer than two classes, or too few or too many images.
        AlreadyFinishedError: if there is a page and `overwrite` is not set.
    """
    url = gan or workspace.gan
    generator = load_generator(Store(url))
    labels, side, pairs = _labels(generator, steps)
    frames = len(seeds) * len(labels)
    if not 0 < frames <= MOST_FRAMES:
        raise ConfigError(
            f"--seeds and --steps make {len(seeds)} x {len(labels)} images; the page holds up to "
            f"{MOST_FRAMES}, so choose fewer"
        )
    teachers = _teachers(config, workspace, generator)
    store = open_output(out or f"{workspace.workdir}/explore", PAGE, overwrite)
    latents = []
    with Progress("explore", frames, "images") as progress:
        for seed in seeds:
            images = sample_images(
                generator.network, [seed] * len(labels), labels, config.synthesis
            )
            seen = teachers.probabilities(images, slice(1))[:, 0] if teachers else None
            latents.append(latent_of(seed, images, labels, seen, side=side, pairs=pairs))
            progress.update(len(labels))
    page = render_explore(
        ExploreContent(
            name=Store(url).url.removesuffix("/gan").rsplit("/", 1)[-1],
            created=datetime.datetime.now(datetime.UTC),
            classes=generator.classes,
            checksum=generator.checksum,
            kimg=generator.kimg,
            teacher=teachers.rows[0].name if teachers else None,
            sampling=config.synthesis,
            latents=tuple(latents),
        )
    ).encode()
    store.write_bytes(PAGE, page)
    log.info("%s/%s: %d images, %.1f MB", store.url, PAGE, frames, len(page) / 1e6)
    if len(page) > _LARGE:
        log.warning("the page may open slowly; fewer --seeds or --steps make it smaller")
    return f"{store.url}/{PAGE}"


def _labels(
    generator: GeneratorBundle, steps: int
) -> tuple[np.ndarray, int, list[tuple[int, int]]]:
    """Return the labels of a latent's images [N, K], the triangle's side (0: none), and the pairs.

    Raises:
        ConfigError: for a generator with fewer than two classes, or fewer than two steps.
    """
    classes = len(generator.classes)
    if classes < 2:
        raise ConfigError(
            f"the generator has {classes} classes: there is nothing between two of them; see its "
            "images with gemix sample"
        )
    if steps < 2:
        raise ConfigError(f"--steps {steps}: a path between two classes has 2 images or more")
    pairs = list(itertools.combinations(range(classes), 2))
    paths = label_path(classes, steps).reshape(-1, classes)
    if classes != 3:
        return paths, 0, pairs
    side = max(2, (steps + 1) // 2)
    return np.concatenate([simplex_rows(side), paths]), side, pairs


def _teachers(
    config: PipelineConfig, workspace: Workspace, generator: GeneratorBundle
) -> Teachers | None:
    url = config.synthesis.teacher or workspace.teacher
    teachers = Teachers.load_if_there(
        url,
        generator.classes,
        generator.network.architecture.image_shape,
        required=config.synthesis.teacher is not None,
    )
    if teachers is None:
        log.info("no teacher in %s: the page shows what was asked for alone", url)
    return teachers
