"""Open a sweep: what it reads, its directory and its study."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from typing import Any

import optuna

from gemix.classifier.decision.decision import check_rule
from gemix.classifier.models import check_model, check_name
from gemix.classifier.optimizer import check_optimizer
from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, ConfigError, DataError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import describe_normal_class, normal_class
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.io.results import SWEEP
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.outputs import CONFIG, clear_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.sweep.config import SweepConfig, without_password
from gemix.sweep.database import Retrying, connect, database_url
from gemix.sweep.space import SearchSpace
from gemix.sweep.study import SweepStudy
from gemix.synthesis.config import LABEL_SOURCES
from gemix.synthesis.labelling import check_thresholds
from gemix.synthesis.shards import check_generator
from gemix.synthesis.teacher import TEACHER, TeacherRow, Teachers

log = logging.getLogger("gemix.sweep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """An open sweep.

    Attributes:
        training, validation: the real images; there is no test split here.
    """

    config: PipelineConfig
    workspace: Workspace
    training: ImageSet
    validation: ImageSet
    study: SweepStudy

    def settings(self, params: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return what a trial changes, values by dotted path, and its label sampler if any."""
        counts = [
            int((self.training.labels == label).sum())
            for label in range(len(self.training.classes))
        ]
        return self.study.space.settings(params, counts), params.get("method")


def open_sweep(config: PipelineConfig, workspace: Workspace, overwrite: bool = False) -> Sweep:
    """Read the real images and open the study, new or begun before.

    The caller holds :func:`gemix.data.shards.seal.sealed` over the test split.

    Raises:
        DataError, CheckpointError: without prepared data, a generator of their classes, or a
            teacher where labels need one; or if generator or teacher learned from the validation
            images and ``data.allow_overlap`` is not set.
        AlreadyFinishedError: if all trials have ended.
        ConfigError: for a model that cannot be built, an unknown optimizer, a recipe that another
            setting rules out, or a study of another search space.
        StoreError: if the database does not answer.
    """
    config = with_label_sources(config, workspace)
    settings = config.sweep
    manifest = Manifest.load(Store(workspace.data))
    check_optimizer(config.classifier.optimizer)
    _check_recipes(config)
    for model in settings.models or (config.classifier.model,):
        check_name(model)
        check_model(
            model,
            channels=manifest.channels,
            resolution=manifest.resolution,
            augment=config.classifier.augment,
        )
    if config.classifier.seed + settings.seeds + settings.fresh_seeds > 2**32:
        raise ConfigError(
            f"sweep.seeds={settings.seeds} and sweep.fresh_seeds={settings.fresh_seeds}: too many "
            "after classifier.seed"
        )
    if config.synthesis.seed + settings.fresh_seeds >= 2**32:
        raise ConfigError(
            f"sweep.fresh_seeds={settings.fresh_seeds}: too many after synthesis.seed"
        )
    normal = normal_class(manifest.classes, config.data.normal_class)
    log.info(describe_normal_class(manifest.classes, normal))
    gan_url = config.synthesis.generator or workspace.gan
    generator = load_generator(Store(gan_url))
    check_generator(generator, manifest.classes)
    teachers: tuple[TeacherRow, ...] = ()
    check_thresholds(config.synthesis, manifest.classes)
    if needs_teacher(config):
        found = Teachers.load(config.synthesis.teacher or workspace.teacher)
        found.check(manifest.classes, manifest.image_shape)
        teachers = found.rows
    space = SearchSpace(settings, lr=config.classifier.lr, model=config.classifier.model)
    learned, val = real_splits(workspace, "train", "val")
    made_by = made_by_provenance(config, workspace)
    enforce_no_overlap("sweep", config, itertools.product([learned, *made_by], [val]))
    training, validation = (read_images([workspace.data], split) for split in ("train", "val"))
    if settings.fresh_seeds:
        check_rule(config.decision, validation.labels, validation.groups, normal)
        if len(set(validation.groups)) < 2:
            raise DataError(
                f"{workspace.data}: one patient in the validation split; a winner is chosen over "
                "patients, so enlarge data.val_fraction, or set sweep.fresh_seeds=0"
            )
    identity = {
        "settings": _fixed_settings(config, space),
        "training images": training.digest,
        "validation images": validation.digest,
        "generator": generator.checksum,
        "teachers": [row.checksum for row in teachers],
    }
    study = _open_study(config, workspace, space, identity, overwrite)
    if study.objective.pareto:
        log.info("a Pareto front of macro-F2 and FNR: trials are not stopped early")
    return Sweep(
        config=config,
        workspace=workspace,
        training=training,
        validation=validation,
        study=study,
    )


def with_label_sources(config: PipelineConfig, workspace: Workspace) -> PipelineConfig:
    """Return the configuration with a list for `sweep.label_sources`, where that is null."""
    if config.sweep.label_sources is not None:
        return config
    teacher = Store(config.synthesis.teacher or workspace.teacher)
    found = LABEL_SOURCES if teacher.exists(TEACHER) else ()
    return dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, label_sources=found))


def needs_teacher(config: PipelineConfig) -> bool:
    """Return whether a trial may need a teacher; `sweep.label_sources` is a list."""
    sources = config.sweep.label_sources or (config.synthesis.labels,)
    return any(
        dataclasses.replace(config.synthesis, labels=source).needs_teacher for source in sources
    )


def made_by_provenance(config: PipelineConfig, workspace: Workspace) -> list[Provenance]:
    """Return the records of generator and teacher; `sweep.label_sources` is a list."""
    found = [Provenance(Store(config.synthesis.generator or workspace.gan), "the generator")]
    if needs_teacher(config):
        url = config.synthesis.teacher or workspace.teacher
        found.append(Provenance(Store(url), "the teacher"))
    return found


def _check_recipes(config: PipelineConfig) -> None:
    """Check, before a trial fails, that each recipe goes with the classifier's other settings.

    Raises:
        ConfigError: naming the recipe and the setting.
    """
    for recipe in config.sweep.recipes:
        try:
            dataclasses.replace(config.classifier, recipe=recipe)
        except ConfigError as error:
            raise ConfigError(
                f"sweep.recipes: leave {recipe} out, or mend this: {error}"
            ) from error


def _fixed_settings(config: PipelineConfig, space: SearchSpace) -> dict[str, Any]:
    """Return the settings that all trials have, as far as they change what a trial is worth."""
    tree = config.to_mapping()
    searched = {parameter.setting for parameter in space.parameters}
    # the ratio says how many images, the space which samplers; the others change no image
    irrelevant = {"synthesis.count", "synthesis.methods", "synthesis.shard_rows"}
    irrelevant |= {"synthesis.batch", "classifier.seeds"}
    return {
        section: {
            key: value
            for key, value in tree[section].items()
            if f"{section}.{key}" not in searched | irrelevant
        }
        for section in ("labels", "synthesis", "classifier")
    } | {"data": {"normal_class": config.data.normal_class}}


def _open_study(
    config: PipelineConfig,
    workspace: Workspace,
    space: SearchSpace,
    identity: dict[str, Any],
    overwrite: bool,
) -> SweepStudy:
    settings, store = config.sweep, Store(workspace.sweep)
    url = database_url(settings.storage, store)
    if overwrite:
        clear_step(workspace.sweep, SWEEP)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    storage = connect(url)
    name = settings.study
    if overwrite and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = SweepStudy(storage, settings, space, identity, Retrying(without_password(url)))
    if study.is_exhausted and store.exists(SWEEP) and _is_confirmed(store, settings):
        raise AlreadyFinishedError(
            f"{store.url}: all {settings.trials} trials of the study {name!r} have ended; raise "
            "sweep.trials to go on, or pass --overwrite to begin again"
        )
    store.delete(SWEEP)
    return study


def _is_confirmed(store: Store, settings: SweepConfig) -> bool:
    """Return whether the winner is known, or not asked for."""
    return settings.fresh_seeds == 0 or store.read_json(SWEEP).get("confirmed") is not None
