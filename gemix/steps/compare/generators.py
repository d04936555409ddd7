"""Generators that a comparison trains: of other seeds, of each draw of patients, the baseline's."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gemix.comparison.config import CGAN
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import Block
from gemix.config import PipelineConfig
from gemix.core.config_schema import (
    Config,
    Operational,
    changed_settings,
    marked_fields,
    settings_of_other_methods,
)
from gemix.core.errors import (
    AlreadyFinishedError,
    ConfigError,
    DataError,
    GemixError,
    TransientError,
)
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.subset import write_subset
from gemix.gan.checkpoints.generator_io import MARKER
from gemix.gan.config import GanConfig
from gemix.io.resume_cache import digest_of
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.sets import SetDirectories
from gemix.steps.runtime.executor import Executor
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.class_weights import resolve_class_weights
from gemix.synthesis.teacher import TEACHER, read_teachers
from gemix.zoo import open_pretrained

log = logging.getLogger("gemix.compare")

_NOT_OF_ROWS = ("methods", "generator", "teacher", "shard_rows", "fidelity_images")
"""Settings of ``synthesis`` that change no image or label, or are compared otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorTraining:
    """A generator that a comparison trains, and the sets that it makes.

    Attributes:
        names: of the sets, as methods name them; their samplers are ``synthesis.methods`` of
            `config`, in the same order.
        fraction, draw: of the training patients; fraction 1 for all.
        config: of the training, its teachers and sets.
    """

    names: tuple[str, ...]
    fraction: float
    draw: int
    config: PipelineConfig

    @property
    def patients(self) -> str:
        """Whose images it learns from, in words."""
        if self.fraction == 1:
            return "all training patients"
        return f"draw {self.draw} of {self.fraction:g} of the training patients"

    @property
    def trains_teachers(self) -> bool:
        """Return whether it has teachers of its own."""
        lacks = self.fraction < 1 and not self.config.synthesis.teacher
        is_asked = self.config.synthesis.needs_teacher
        return (lacks and is_asked) or self.config.metrics.best_by == "labels"


def plan_generators(
    config: PipelineConfig, workspace: Workspace, blocks: Sequence[Block]
) -> list[GeneratorTraining]:
    """Return the generators that are trained for a comparison.

    Raises:
        ConfigError: if they are to be trained, and ``synthesis.generator`` names another one; if
            those of other seeds would differ by more from that of the work directory.
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
    if samplers and settings.gan_seeds > 1:
        _check_work_directory(config, workspace, samplers)
    configured = functools.partial(_training, config, workspace)
    found = []
    draws = dict.fromkeys((b.fraction, draw) for b in blocks for draw in range(b.draws))
    for fraction, draw in draws:
        if settings.generator == "retrained" and fraction < 1:
            found += [configured(n, draw, fraction, draw) for n in (samplers, cgan) if n]
    if settings.generator == "shared" or 1 in settings.fractions:
        has_cgan = Store(workspace.synthetic(CGAN)).exists(MANIFEST)
        for seed in range(settings.gan_seeds):
            if samplers and seed:
                found.append(configured(samplers, seed))
            if cgan and (seed or not has_cgan):
                found.append(configured(cgan, seed))
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
    what is finished there is kept, what was stopped goes on. A generator that fails fails its
    methods; the others go on.

    Args:
        found: the directories of the other sets by name.
        patients: the class, int64 [N], and the patient of each real training image.

    Raises:
        ConfigError, TransientError: as the steps raise them.
    """
    shared, retrained = {name: list(urls) for name, urls in found.items()}, {}
    failures: dict[str, str] = {}
    labels, groups = patients
    data = Manifest.load(Store(workspace.data))
    for training in trainings:
        drawn = {*groups}
        if training.fraction < 1:
            rows = draw_patients(
                labels,
                groups,
                fraction=training.fraction,
                draw=training.draw,
                seed=config.compare.seed,
                classes=data.classes,
            )
            drawn = {groups[row] for row in rows}
        try:
            made = _make(config, workspace, data, training, drawn, executor)
        except (ConfigError, TransientError):
            raise
        except GemixError as error:
            reason = f"its generator failed: {' '.join(str(error).split())[:300]}"
            log.warning("%s: %s", ", ".join(training.names), reason)
            failures |= dict.fromkeys(training.names, reason)
            continue
        for name, url in made.items():
            if training.fraction < 1:
                retrained[name, training.fraction, training.draw] = url
            else:
                shared.setdefault(name, []).append(url)
    names = tuple(name for name in config.compare.synthetic_sets if name not in failures)
    return SetDirectories(names=names, shared=shared, retrained=retrained, failures=failures)


def _training(
    config: PipelineConfig,
    workspace: Workspace,
    names: tuple[str, ...],
    seed: int,
    fraction: float = 1.0,
    draw: int = 0,
) -> GeneratorTraining:
    """Return a training with its settings; each draw has seeds of its own.

    Raises:
        InvalidConfig: for seeds of 2^32 or more.
    """
    gan = dataclasses.replace(config.gan, seed=config.gan.seed + seed)
    synthesis, methods, teacher = config.synthesis, names, config.teacher
    has_teacher = Store(workspace.teacher).exists(TEACHER)
    if names == (CGAN,):
        gan, methods = _baseline(gan), ("onehot",)
        as_asked = {"labels": "asked", "accept": "all", "min_seen": None}
        synthesis = dataclasses.replace(synthesis, **as_asked)
    elif fraction == 1 and not synthesis.teacher and has_teacher:
        synthesis = dataclasses.replace(synthesis, teacher=workspace.teacher)
    if fraction < 1:
        teacher = dataclasses.replace(teacher, seed=teacher.seed + draw * teacher.seeds)
    synthesis = dataclasses.replace(synthesis, generator=None, methods=methods)
    config = dataclasses.replace(config, gan=gan, synthesis=synthesis, teacher=teacher)
    return GeneratorTraining(names=names, fraction=fraction, draw=draw, config=config)


def _baseline(gan: GanConfig) -> GanConfig:
    """Return the settings of the CGAN, which starts from nothing and has losses of its own."""
    others = {"method", "init_from", "pretrain_kimg", *settings_of_other_methods(GanConfig, CGAN)}
    kept = {name: value for name, value in vars(gan).items() if name not in others}
    return GanConfig(method=CGAN, **kept)


def _check_work_directory(
    config: PipelineConfig, workspace: Workspace, samplers: Sequence[str]
) -> None:
    """Require that generator and sets of the work directory are of these settings.

    Those of other seeds would else be of another kind, or one of them the same again.

    Raises:
        ConfigError: naming the settings that differ.
        DataError: if they are not there.
    """
    gan = Store(workspace.gan)
    if not gan.exists(MARKER):
        raise DataError(
            f"{gan.url}: no finished generator; compare.gan_seeds trains those of other seeds "
            "beside it: run gemix train-gan first"
        )
    trained = gan.read_json(MARKER)["config"]
    labels = resolve_class_weights(config.labels, Manifest.load(Store(workspace.data)))
    differing = [f"gan.{name}" for name in changed_settings(trained, config.gan)]
    for name in samplers:
        store = Store(workspace.synthetic(name))
        if store.exists(MANIFEST):
            origin = Manifest.load(store).origin
            changed = changed_settings(origin["synthesis"], config.synthesis)
            changed = [f"synthesis.{one}" for one in changed if one not in _NOT_OF_ROWS]
            changed += [f"labels.{one}" for one in changed_settings(origin["labels"], labels)]
            differing += [f"{one} ({name})" for one in changed]
    if differing:
        raise ConfigError(
            f"compare.gan_seeds={config.compare.gan_seeds}: the generator or the sets of "
            f"{workspace.workdir} were made with other settings than these: "
            f"{', '.join(differing)}; repeat those that they were made with"
        )


def _make(
    config: PipelineConfig,
    workspace: Workspace,
    data: Manifest,
    training: GeneratorTraining,
    patients: Collection[str],
    executor: Executor,
) -> dict[str, str]:
    """Train a generator on the images of some patients; return its sets' directories by name."""
    settings = training.config
    folder = f"{workspace.comparison}/generators/{_address(config, training, data)}"
    below, gan = Workspace(folder), settings.gan
    log.info("%s, gan.seed=%d, %s: %s", gan.method, gan.seed, training.patients, folder)
    write_subset(Store(workspace.data), Store(below.data), patients)
    for step in (train_teachers, train_gan) if training.trains_teachers else (train_gan,):
        with contextlib.suppress(AlreadyFinishedError):
            step(settings, below, executor=executor)
    rows = _rows_digest(settings, Manifest.load(Store(below.data)))
    made = {}
    for name, method in zip(training.names, settings.synthesis.methods, strict=True):
        made[name] = below.synthetic(f"{method}-{rows}")
        into = {method: made[name]}.__getitem__
        with contextlib.suppress(AlreadyFinishedError):
            synthesize(settings, below, methods=[method], into=into, executor=executor)
    return made


def _address(config: PipelineConfig, training: GeneratorTraining, data: Manifest) -> str:
    """Return a name of all that generator and teachers depend on."""
    settings, gan = training.config, training.config.gan
    made_of = {
        "gan": _settings(gan, "init_from"),
        "start": gan.init_from and open_pretrained(gan.init_from).read_json(MARKER)["sha256"],
        "metrics": _settings(settings.metrics),
        "teacher": _settings(settings.teacher) if training.trains_teachers else None,
        "data": data.digest,
    }
    share = ""
    if training.fraction < 1:
        made_of["patients"] = [training.fraction, training.draw, config.compare.seed]
        share = f"-{training.fraction:g}-{training.draw}"
    kind = CGAN if gan.method == CGAN else "gan"
    return f"{kind}{share}-seed{gan.seed}-{digest_of(made_of)[:12]}"


def _rows_digest(config: PipelineConfig, data: Manifest) -> str:
    """Return a digest of what sets depend on beside generator, teachers of the same, and sampler.

    Args:
        data: the real images of the draw.
    """
    url = config.synthesis.teacher
    made_of = {
        "labels": resolve_class_weights(config.labels, data).to_mapping(),
        "synthesis": _settings(config.synthesis, *_NOT_OF_ROWS, "count", "ratio"),
        "count": config.synthesis.images(data.images("train")),
        "teachers": [row.checksum for row in read_teachers(Store(url))] if url else [],
    }
    return digest_of(made_of)[:12]


def _settings(section: Config, *without: str) -> dict[str, object]:
    """Return the settings that change results, but for some."""
    left_out = {*without, *marked_fields(type(section), Operational)}
    return {name: value for name, value in section.to_mapping().items() if name not in left_out}
