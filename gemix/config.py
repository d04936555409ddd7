"""The whole configuration tree, its presets, files and command-line overrides."""

from __future__ import annotations

import dataclasses
import importlib.resources
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml

from gemix.classifier.config import ClassifierConfig
from gemix.classifier.decision.config import DecisionConfig
from gemix.comparison.config import CompareConfig
from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Operational,
    Range,
    changed_settings,
    settings_of_other_methods,
)
from gemix.core.errors import ConfigError
from gemix.data.config import DataConfig
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.privacy.config import AuditConfig
from gemix.gan.config import GanConfig
from gemix.labels import LabelConfig
from gemix.promotion.config import PromotionConfig
from gemix.sweep.config import SweepConfig
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.curation.config import CurationConfig

RENAMED = {"gan.data": "gan.data_loading"}
"""Settings of earlier versions and their names of today; files with the old names still load."""

STEP_SECTIONS: dict[str, tuple[str, ...]] = {
    "prepare": ("data",),
    "train-teacher": ("teacher",),
    "train-gan": ("gan", "metrics"),
    "synthesize": ("labels", "synthesis"),
    "audit": ("audit",),
    "train-classifier": ("classifier", "decision", "synthesis.methods", "data.normal_class"),
    "evaluate": ("data.normal_class", "synthesis.teacher"),
    "report": (),
}
"""The settings that each step of the pipeline reads, by section or dotted path, in order."""

STEP_INPUTS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "train-teacher": ("prepare",),
    "train-gan": ("prepare",),
    "synthesize": ("prepare", "train-teacher", "train-gan"),
    "audit": ("prepare", "train-gan", "synthesize"),
    "train-classifier": ("prepare", "synthesize"),
    "evaluate": ("prepare", "train-classifier"),
    "report": (
        "prepare",
        "train-teacher",
        "train-gan",
        "synthesize",
        "audit",
        "train-classifier",
        "evaluate",
    ),
}
"""The steps whose results each step reads."""

_NOT_OF_PREPARE = ("data.normal_class",)  # of the section `data`, but read by later steps alone

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class About(Config):
    """Hardware, cost and expected result of a preset, in words."""

    hardware: Annotated[str, "Hardware that the preset is made for."] = ""
    cost: Annotated[str, "Time or operations that it takes."] = ""
    expect: Annotated[str, "Results to expect."] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingConfig(Config):
    """MLflow names. The store is ``MLFLOW_TRACKING_URI``, else SQLite in the work directory."""

    experiment: Annotated[str, "Name of the MLflow experiment."] = "gemix"
    registered_model: Annotated[str, "Name under which MLflow registers the best classifier."] = (
        "gemix-classifier"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig(Config):
    """Resources of the Ray jobs."""

    workers: Annotated[
        int, Range(0, 10_000), "Processes that share a training; 0: the job's own, for debugging."
    ] = 1
    cpus_per_worker: Annotated[int, Range(1, 1024), "CPU cores of each worker."] = 2
    gpus_per_worker: Annotated[
        float | None,
        Range(0, 1024),
        "GPUs of each worker, or a share of one; null: one where the cluster has GPUs, else none.",
    ] = None
    max_failures: Annotated[
        int, Range(-1, 1_000_000), "Restarts of a training whose workers died; -1: no limit."
    ] = 2

    def validate(self) -> list[ConfigIssue]:
        """Require whole GPUs above 1 and shares of 0.0001 or more, as Ray does."""
        gpus = self.gpus_per_worker or 0.0
        if gpus == 0 or 1e-4 <= gpus <= 1 or (gpus > 1 and gpus.is_integer()):
            return []
        return [ConfigIssue("gpus_per_worker", gpus, "0, a share from 0.0001 to 1, or whole GPUs")]

    @property
    def ranks(self) -> int:
        """Return how many processes share a training, the job's own if there are no workers."""
        return max(1, self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig(Config):
    """All settings of a pipeline, by section."""

    about: Annotated[About, Operational(), "What a preset needs, costs and should reach."] = About()
    data: Annotated[DataConfig, "Scans: source, preprocessing, splits."] = DataConfig()
    gan: Annotated[GanConfig, "The GAN: architecture, losses, schedule."] = GanConfig()
    metrics: Annotated[MetricsConfig, Operational(), "Image metrics of the GAN training."] = (
        MetricsConfig()
    )
    labels: Annotated[LabelConfig, "Samplers of soft labels."] = LabelConfig()
    synthesis: Annotated[SynthesisConfig, "Sets of synthetic images."] = SynthesisConfig()
    teacher: Annotated[
        ClassifierConfig, "Classifiers of real images that say what synthetic ones show."
    ] = ClassifierConfig(seeds=2)
    curation: Annotated[
        CurationConfig, Operational(), "What is left out of a synthetic set by gemix curate."
    ] = CurationConfig()
    audit: Annotated[AuditConfig, Operational(), "The privacy audit of synthetic sets."] = (
        AuditConfig()
    )
    classifier: Annotated[ClassifierConfig, "Classifiers and their training."] = ClassifierConfig()
    decision: Annotated[DecisionConfig, "From a classifier's outputs to a class."] = (
        DecisionConfig()
    )
    compare: Annotated[CompareConfig, Operational(), "The comparison of methods."] = CompareConfig()
    sweep: Annotated[SweepConfig, Operational(), "The sweep of T, b and N."] = SweepConfig()
    promotion: Annotated[PromotionConfig, Operational(), "The gate and the card of a champion."] = (
        PromotionConfig()
    )
    tracking: Annotated[TrackingConfig, Operational(), "Names in MLflow."] = TrackingConfig()
    compute: Annotated[ComputeConfig, Operational(), "Resources of the Ray jobs."] = ComputeConfig()

    def validate(self) -> list[ConfigIssue]:
        """Require a feature map at the full resolution, and teachers that never stop early."""
        issues = []
        base, resolution = self.gan.channel_base, self.data.resolution
        if base is not None and base < resolution:
            allowed = f"at least data.resolution, {resolution}"
            issues.append(ConfigIssue("gan.channel_base", base, allowed))
        if self.teacher.early_stopping is not None:
            allowed = "null: a teacher owes nothing to the validation images that judge it"
            issues.append(
                ConfigIssue("teacher.early_stopping", self.teacher.early_stopping, allowed)
            )
        return issues

    def changed_since(self, old: Mapping[str, Any]) -> list[str]:
        """Return the dotted paths of settings that differ from `old` and may change results.

        Args:
            old: the configuration of an earlier attempt, as its YAML file holds it, of this or of
                another version.
        """
        return changed_settings(_renamed(old, by_user=False), self)

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML; `load` reads it back."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False)


def preset_names() -> list[str]:
    """Return the names of the presets that come with gemix."""
    folder = importlib.resources.files("gemix.presets")
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(name_or_file: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Build the configuration from a preset or a YAML file and ``section.key=value`` overrides.

    Where an override changes ``gan.method``, what the file sets for its own method is left out.

    Values are read as YAML: ``gan.r1_gamma=null``, ``synthesis.methods=[softmax,onehot]``.

    Raises:
        ConfigError: for a file that is missing or not YAML, or with all bad settings at once.
    """
    tree, changes = _renamed(_read(name_or_file)), {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: write it as section.key=value")
        try:
            _set(changes, key.split("."), yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, say
            raise ConfigError(f"override {override!r}: the value is not YAML ({error})") from error
    changes = _renamed(changes)
    return PipelineConfig.from_mapping(_merged(_of_method(tree, changes), changes))


def steps_to_redo(changed: Iterable[str], steps: Container[str] = tuple(STEP_INPUTS)) -> list[str]:
    """Return the steps whose results other settings, given as dotted paths, make out of date.

    These are the steps that read one of the settings, and those that read their results.

    Args:
        steps: those that are run; what others read changes nothing.
    """
    redo: list[str] = []
    for step, inputs in STEP_INPUTS.items():
        if step not in steps:
            continue
        own = any(_reads(step, path) for path in changed)
        if own or any(name in redo for name in inputs):
            redo.append(step)
    return redo


def _reads(step: str, path: str) -> bool:
    if step == "prepare" and path in _NOT_OF_PREPARE:
        return False
    return any(path == own or path.startswith(f"{own}.") for own in STEP_SECTIONS[step])


def _renamed(tree: Mapping[str, Any], by_user: bool = True) -> dict[str, Any]:
    """Return the tree with settings under their names of today; tell a user who can rename them."""
    result = dict(tree)
    for old, new in RENAMED.items():
        (section, old_key), (_, new_key) = old.split("."), new.split(".")
        settings = result.get(section)
        if not isinstance(settings, Mapping) or old_key not in settings:
            continue
        if by_user and new_key in settings:
            raise ConfigError(f"{old} is called {new} now; remove {old}, since both are set")
        if by_user:
            log.warning("%s is called %s now; please rename it", old, new)
        names = {old_key: new_key}
        result[section] = {names.get(key, key): value for key, value in settings.items()}
    return result


def _of_method(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree without what it sets for another method than `changes` ask for."""
    ours, theirs = tree.get("gan"), changes.get("gan")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping) or "method" not in theirs:
        return tree
    if theirs["method"] == ours.get("method", GanConfig().method):
        return tree
    other = settings_of_other_methods(GanConfig, theirs["method"])
    return tree | {"gan": {key: value for key, value in ours.items() if key not in other}}


def _merged(tree: Any, changes: Any) -> Any:
    """Return `tree` with the values of `changes`, section by section."""
    if not isinstance(tree, Mapping) or not isinstance(changes, Mapping):
        return changes
    merged = {key: _merged(tree.get(key), value) for key, value in changes.items()}
    return {**tree, **merged}


def _read(name_or_file: str) -> dict[str, Any]:
    if name_or_file in preset_names():
        file = importlib.resources.files("gemix.presets") / f"{name_or_file}.yaml"
    else:
        file = Path(name_or_file)
        if not file.is_file():
            presets = ", ".join(preset_names())
            raise ConfigError(f"-c {name_or_file}: neither a preset ({presets}) nor a file")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name_or_file}: not valid YAML ({error})") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{name_or_file}: no mapping of sections (data: {...}, gan: {...})")
    return dict(tree)


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested value; a scalar in the way is replaced by a section."""
    *sections, key = path
    for section in sections:
        inner = tree.get(section)
        tree[section] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[section]
    tree[key] = value
