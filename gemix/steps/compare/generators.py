"""Generators that a comparison trains: of other seeds, of each draw of patients, the baseline's."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gemix.comparison.config import CGAN
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import Block
from gemix.config import PipelineConfig
from gemix.core.config_schema import Operational, marked_fields, settings_of_other_methods
from gemix.core.errors import AlreadyFinishedError, ConfigError
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.subset import write_subset
from gemix.gan.config import GanConfig
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.sets import SetDirectories
from gemix.steps.runtime.executor import Executor
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.teacher import TEACHER, read_teachers

log = logging.getLogger("gemix.compare")

_SECTIONS = ("gan", "metrics", "teacher", "labels", "synthesis")
_ELSEWHERE = ("methods", "generator", "teacher")  # of the section `synthesis`


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorTraining:
    """A generator that a comparison trains, and the sets that it makes.

    Attributes:
        names: of the sets, as methods name them.
        seed: added to ``gan.seed``.
        fraction, draw: of the training patients; fraction 1 for all.
    """

    names: tuple[str, ...]
    seed: int = 0
    fraction: float = 1.0
    draw: int = 0

    @property
    def is_cgan(self) -> bool:
        """Return whether it is the paper's baseline."""
        return self.names == (CGAN,)

    @property
    def patients(self) -> str:
        """Whose images it learns from, in words."""
        if self.fraction == 1:
            return "all training patients"
        return f"draw {self.draw} of {self.fraction:g} of the training patients"


def plan_generators(
    config: PipelineConfig, workspace: Workspace, blocks: Sequence[Block]
) -> list[GeneratorTraining]:
    """Return the generators that are trained for a comparison.

    Raises:
        ConfigError: if they are to be trained anew, and ``synthesis.generator`` names another one.
    """
    settings = config.compare
    made = settings.made_sets
    samplers = tuple(name for name in made if name != CGAN)
    cgan = (CGAN,) if CGAN in made else ()
    if samplers and config.synthesis.generator and settings.trains_generators:
        raise ConfigError(
            f"synthesis.generator={config.synthesis.generator} makes the sets, and "
            "compare.generator=retrained or compare.gan_seeds above 1 train generators; set it to "
            "null, or leave these at their defaults"
        )
    found = []
    draws = dict.fromkeys((b.fraction, draw) for b in blocks for draw in range(b.draws))
    for fraction, draw in draws:
        if settings.generator == "retrained" and fraction < 1:
            of_draw = {"fraction": fraction, "draw": draw}
            found += [GeneratorTraining(names=n, **of_draw) for n in (samplers, cgan) if n]
    if settings.generator == "shared" or 1 in settings.fractions:
        has_cgan = Store(workspace.synthetic(CGAN)).exists(MANIFEST)
        for seed in range(settings.gan_seeds):
            if samplers and seed:
                found.append(GeneratorTraining(names=samplers, seed=seed))
            if cgan and (seed or not has_cgan):
                found.append(GeneratorTraining(names=cgan, seed=seed))
    return found


def sets_of_work_directory(config: PipelineConfig, workspace: Workspace) -> tuple[str, ...]:
    """Return the names of the methods' sets that are found, not made, one generator's at least."""
    settings = config.compare
    made = {*settings.made_sets}
    if settings.generator == "shared" or 1 in settings.fractions:
        made &= set() if Store(workspace.synthetic(CGAN)).exists(MANIFEST) else {CGAN}
    return tuple(name for name in settings.synthetic_sets if name not in made)


def make_sets(
    config: PipelineConfig,
    workspace: Workspace,
    found: Mapping[str, Sequence[str]],
    trainings: Sequence[GeneratorTraining],
    patients: tuple[np.ndarray, Sequence[str]],
    executor: Executor,
) -> SetDirectories:
    """Train generators one after another, and make their sets.

    Each lies in a work directory of its own below the comparison, named by all that it depends on:
    what is finished there is kept, what was stopped goes on.

    Args:
        found: the directories of the other sets by name.
        patients: the class, int64 [N], and the patient of each real training image.

    Raises:
        GemixError: as the steps raise it.
    """
    shared, retrained = {name: list(urls) for name, urls in found.items()}, {}
    labels, groups = patients
    for training in trainings:
        drawn = draw_patients(
            labels,
            groups,
            fraction=training.fraction,
            draw=training.draw,
            seed=config.compare.seed,
            classes=Manifest.load(Store(workspace.data)).classes,
        )
        made = _make(config, workspace, training, {groups[row] for row in drawn}, executor)
        for name, url in made.items():
            if training.fraction < 1:
                retrained[name, training.fraction, training.draw] = url
            else:
                shared.setdefault(name, []).append(url)
    names = config.compare.synthetic_sets
    return SetDirectories(names=names, shared=shared, retrained=retrained)


def _make(
    config: PipelineConfig,
    workspace: Workspace,
    training: GeneratorTraining,
    patients: Collection[str],
    executor: Executor,
) -> dict[str, str]:
    """Train a generator on the images of some patients; return its sets' directories by name."""
    config = _configured(config, workspace, training)
    data = Manifest.load(Store(workspace.data))
    below = Workspace(f"{workspace.comparison}/generators/{_address(config, training, data)}")
    log.info(
        "%s, gan.seed=%d, %s: %s",
        config.gan.method,
        config.gan.seed,
        training.patients,
        below.workdir,
    )
    write_subset(Store(workspace.data), Store(below.data), patients)
    steps = [train_gan, synthesize]
    lacks_teacher = training.fraction < 1 and config.synthesis.needs_teacher
    if (lacks_teacher and not config.synthesis.teacher) or config.metrics.best_by == "labels":
        steps.insert(0, train_teachers)
    for step in steps:
        with contextlib.suppress(AlreadyFinishedError):
            step(config, below, executor=executor)
    methods = config.synthesis.methods
    return {
        name: below.synthetic(method) for name, method in zip(training.names, methods, strict=True)
    }


def _configured(
    config: PipelineConfig, workspace: Workspace, training: GeneratorTraining
) -> PipelineConfig:
    """Return the settings of a generator's training, teachers and sets."""
    gan = dataclasses.replace(config.gan, seed=config.gan.seed + training.seed)
    synthesis, methods = config.synthesis, training.names
    has_teacher = Store(workspace.teacher).exists(TEACHER)
    if training.is_cgan:
        gan, methods = _baseline(gan), ("onehot",)
        as_asked = {"labels": "asked", "accept": "all", "min_seen": None}
        synthesis = dataclasses.replace(synthesis, **as_asked)
    elif training.fraction == 1 and not synthesis.teacher and has_teacher:
        synthesis = dataclasses.replace(synthesis, teacher=workspace.teacher)
    synthesis = dataclasses.replace(synthesis, generator=None, methods=methods)
    return dataclasses.replace(config, gan=gan, synthesis=synthesis)


def _baseline(gan: GanConfig) -> GanConfig:
    """Return the settings of the CGAN, which starts from nothing and has losses of its own."""
    others = {"method", "init_from", "pretrain_kimg", *settings_of_other_methods(GanConfig, CGAN)}
    kept = {name: value for name, value in vars(gan).items() if name not in others}
    return GanConfig(method=CGAN, **kept)


def _address(config: PipelineConfig, training: GeneratorTraining, data: Manifest) -> str:
    """Return a name of all that generator, teachers and sets depend on, but for the sets' names."""
    settings: dict[str, Mapping[str, Any]] = {}
    for name in _SECTIONS:
        section = getattr(config, name)
        left_out = {*marked_fields(type(section), Operational)}
        if name == "synthesis":
            left_out |= set(_ELSEWHERE)
        settings[name] = {k: v for k, v in section.to_mapping().items() if k not in left_out}
    url = config.synthesis.teacher
    made_of = {
        "settings": settings,
        "teachers": [row.checksum for row in read_teachers(Store(url))] if url else [],
        "data": data.digest,
        "patients": [training.fraction, training.draw, config.compare.seed],
    }
    digest = digest_of(made_of)[:12]
    kind = CGAN if training.is_cgan else "gan"
    share = "" if training.fraction == 1 else f"-{training.fraction:g}-{training.draw}"
    return f"{kind}{share}-seed{config.gan.seed}-{digest}"
