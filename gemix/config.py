"""The whole configuration tree, its presets, files and command-line overrides."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml

from gemix.classifier.config import ClassifierConfig
from gemix.core.config_schema import Config, Count, NonNegative, Positive, Range
from gemix.core.errors import ConfigError
from gemix.data.config import DataConfig
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.gan.config import GanConfig
from gemix.labels import LabelConfig
from gemix.synthesis.config import SynthesisConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class About(Config):
    """What a preset needs, costs and is expected to reach, in words."""

    hardware: str = ""
    cost: str = ""
    expect: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingConfig(Config):
    """MLflow names. The store is ``MLFLOW_TRACKING_URI``, else SQLite in the work directory."""

    experiment: str = "gemix"
    registered_model: str = "gemix-classifier"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig(Config):
    """What the Ray jobs may use. `workers` are the processes of a Ray Train job.

    With 0 workers a training runs in the process of its job, without Ray's restarts: it starts
    sooner, and a debugger can stop in it. `gpus_per_worker` null means one where the
    cluster has GPUs, else none. `max_failures` is how often a training is taken up again after a
    worker died; -1 for ever.
    """

    workers: Count = 1
    cpus_per_worker: Positive = 2
    gpus_per_worker: NonNegative | None = None
    max_failures: Annotated[int, Range(low=-1)] = 2

    @property
    def ranks(self) -> int:
        """How many share a training, in processes of their own or not."""
        return max(1, self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig(Config):
    """Everything that the main job needs to know."""

    about: About = About()
    data: DataConfig = DataConfig()
    gan: GanConfig = GanConfig()
    metrics: MetricsConfig = MetricsConfig()
    labels: LabelConfig = LabelConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    tracking: TrackingConfig = TrackingConfig()
    compute: ComputeConfig = ComputeConfig()

    def to_yaml(self) -> str:
        """The fully resolved configuration; `load` reads it back."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False)


def preset_names() -> list[str]:
    """Names of the presets that come with gemix."""
    folder = importlib.resources.files("gemix.presets")
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(name_or_file: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Builds the configuration from a preset or a YAML file and ``section.key=value`` overrides.

    Values are read as YAML: ``gan.r1_gamma=null``, ``synthesis.methods=[softmax,onehot]``.

    Raises:
        ConfigError: for a file that is missing or not YAML, or with all bad settings at once.
    """
    tree = _read(name_or_file)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: write it as section.key=value")
        try:
            _set(tree, key.split("."), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML ({error})") from error
    return PipelineConfig.from_mapping(tree)


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name_or_file}: not valid YAML ({error})") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{name_or_file}: a mapping of sections is wanted")
    return dict(tree)


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a nested value; a scalar in the way is left for the validation to name."""
    *sections, key = path
    for section in sections:
        inner = tree.get(section)
        tree[section] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[section]
    tree[key] = value
