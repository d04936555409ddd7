"""Presets, files and overrides; rules that hold for every setting."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import pytest
import yaml

from gemix.config import (
    STEP_INPUTS,
    STEP_SECTIONS,
    PipelineConfig,
    load,
    preset_names,
    steps_to_redo,
)
from gemix.core.config_schema import (
    Config,
    InvalidConfig,
    Location,
    doc_of,
    field_docs,
    field_types,
    marked_fields,
)
from gemix.core.errors import ConfigError

SETTINGS = {entry.name: entry for entry in field_docs(PipelineConfig)}
FLOATS = (math.inf, -math.inf, math.nan, 1e308, 0, -1)
INTEGERS = (0, -1, 2**32, 2**64)


def trials() -> list[tuple[str, Any]]:
    """Every numeric setting with every extreme value."""
    found = []
    for name, entry in SETTINGS.items():
        if "a number" in entry.allowed:
            found += itertools.product([name], FLOATS)
        elif "an integer" in entry.allowed:
            found += itertools.product([name], INTEGERS)
    return found


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def sections(config: Config) -> list[Config]:
    inner = [getattr(config, name) for name in field_types(type(config))]
    return [config, *(s for value in inner if isinstance(value, Config) for s in sections(value))]


def derived(config: PipelineConfig) -> list[float]:
    """Every number that is calculated from the settings alone."""
    values: list[Any] = [
        config.gan.kimg_at(config.gan.steps),
        config.gan.resolved_r1_gamma(1024),
        config.gan.resolved_lr(config.gan.g_lr, 1024),
        config.gan.resolved_channel_base(1024),
        config.synthesis.images(10**6),
        round(config.gan.snapshot_kimg * 1000 / config.gan.batch),
        int(config.gan.shuffle_gb * 1e9),
        int(config.data.shard_mb * 1e6),
    ]
    for section in sections(config):
        names = [name for name in dir(type(section)) if not name.startswith("_")]
        found = [
            getattr(section, n) for n in names if isinstance(vars(type(section)).get(n), property)
        ]
        values += [value for value in found if isinstance(value, int | float)]
    return values


def test_the_presets_are_there():
    assert {"demo", "iqoth128", "covidx128"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_needs_and_gives(name):
    about = load(name, ["data.path=somewhere"]).about
    assert about.hardware and about.cost and about.expect


@pytest.mark.parametrize("name", preset_names())
def test_the_resolved_configuration_loads_back(name, tmp_path):
    config = load(name, ["data.path=somewhere"])
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load(str(file)) == config


def test_overrides_reach_into_sections():
    config = load("demo", ["gan.kimg=1e-1", "synthesis.methods=[onehot]", "gan.r1_gamma=null"])
    assert config.gan.kimg == 0.1
    assert config.synthesis.methods == ("onehot",)
    assert config.gan.r1_gamma is None


def test_all_bad_settings_at_once_with_the_nearest_name():
    with pytest.raises(InvalidConfig) as caught:
        load("demo", ["gan.kimgs=3", "gan.batch=0", "dat.x=1", "labels.temperature=0"])
    text = str(caught.value)
    assert "4 bad setting(s)" in text
    for words in (
        "did you mean 'kimg'",
        "gan.batch: given 0, allowed: an integer, from 1 to 65536",
        "did you mean 'data'",
        "labels.temperature: given 0",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("name", "overrides", "word"),
    [
        ("nowhere", [], "neither a preset"),
        ("demo", ["gan.kimg"], "section.key=value"),
        ("demo", ["gan.kimg=[1"], "not YAML"),
        ("demo", ["tracking.experiment=2026-02-30"], "not YAML"),
        ("demo", ["gan.seed=" + "9" * 5000], "not YAML"),
    ],
)
def test_what_cannot_be_read_is_said(name, overrides, word):
    with pytest.raises(ConfigError, match=word):
        load(name, overrides)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just words", "a: 2026-02-30"])
def test_files_that_are_no_configuration(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load(str(file))


def test_to_yaml_holds_every_section():
    tree = yaml.safe_load(PipelineConfig().to_yaml())
    assert set(tree) == {
        "about",
        "data",
        "gan",
        "metrics",
        "labels",
        "synthesis",
        "teacher",
        "curation",
        "audit",
        "classifier",
        "compare",
        "sweep",
        "promotion",
        "tracking",
        "decision",
        "compute",
    }


@pytest.mark.parametrize(("count", "ratio", "images"), [(None, 0.5, 50), (7, 0.5, 7), (None, 0, 1)])
def test_the_number_of_synthetic_images(count, ratio, images):
    config = load("demo", [f"synthesis.count={count or 'null'}", f"synthesis.ratio={ratio}"])
    assert config.synthesis.images(100) == images


def test_every_setting_and_section_has_one_line_of_documentation():
    lines = {name: entry.doc for name, entry in SETTINGS.items()}
    lines |= {name: doc_of(hint) for name, hint in field_types(PipelineConfig).items()}
    assert len(lines) > 90
    for name, line in lines.items():
        assert line and line.endswith(".") and "\n" not in line, name
        assert len(line) <= 120, name


def test_every_setting_that_names_a_file_or_a_directory_is_marked_as_one():
    words = re.compile(r"\b(director(y|ies)|folder|file|database|url|<file>)\b", re.I)
    named = {
        entry.name
        for entry in field_docs(PipelineConfig)
        if words.search(entry.doc) and entry.allowed.startswith("text")
    }
    named -= {"data.patient_pattern", "sweep.study"}  # a pattern and a name
    assert named == set(marked_fields(PipelineConfig, Location))


def test_every_number_has_its_trials():
    assert {"gan.r1_gamma", "labels.class_weights", "data.phantom.seed", "gan.channel_base"} <= {
        name for name, _ in trials()
    }


@pytest.mark.parametrize(("name", "value"), trials())
def test_a_number_is_refused_or_can_be_used(name, value):
    is_list = SETTINGS[name].allowed.startswith("a list")
    tree = nested(name, [value] if is_list else value)
    if name in ("gan.cgan_lr", "gan.cgan_loss"):
        tree["gan"]["method"] = "cgan"
    try:
        config = PipelineConfig.from_mapping(tree)
    except InvalidConfig as error:
        # a conflict between settings may be told of the other one
        section = name.split(".")[0]
        assert all(issue.path.startswith(section) for issue in error.issues)
        assert str(value) in str(error)
        return
    assert not isinstance(value, float) and abs(value) < 2**64
    plain = config.to_mapping()
    assert PipelineConfig.from_mapping(json.loads(json.dumps(plain, allow_nan=False))) == config
    assert PipelineConfig.from_mapping(yaml.safe_load(config.to_yaml())) == config
    assert all(math.isfinite(number) for number in derived(config))
    assert config.gan.steps < 2**63


def test_every_integer_has_an_upper_bound_that_its_use_allows():
    for name, entry in SETTINGS.items():
        if "an integer" in entry.allowed:
            low, high = entry.allowed.removesuffix(" or null").split(" from ")[1].split(" to ")
            assert float(low) >= -1 and float(high) < 2**32, name


@pytest.mark.parametrize(("section", "key"), [("gan", "batch"), ("classifier", "epochs")])
def test_a_count_of_text_is_refused(section, key):
    with pytest.raises(InvalidConfig, match=f"{section}.{key}"):
        PipelineConfig.from_mapping({section: {key: "many"}})


def test_restarts_without_a_limit():
    assert load("demo", ["compute.max_failures=-1"]).compute.max_failures == -1


@pytest.mark.parametrize(
    ("gpus", "is_allowed"), [(0.5, True), (2, True), (1.5, False), (1e-9, False)]
)
def test_gpus_are_whole_or_a_share_of_one(gpus, is_allowed):
    if is_allowed:
        assert load("demo", [f"compute.gpus_per_worker={gpus}"]).compute.gpus_per_worker == gpus
    else:
        with pytest.raises(InvalidConfig, match=r"compute\.gpus_per_worker"):
            load("demo", [f"compute.gpus_per_worker={gpus}"])


def test_presets_that_need_gpus_ask_for_them():
    gpus = {name: load(name).compute.gpus_per_worker for name in preset_names()}
    assert gpus == {"demo": 0, "iqoth128": 1, "covidx128": 1}
    for name, count in gpus.items():
        assert ("no GPU" in load(name).about.hardware) == (count == 0)


def test_a_file_of_an_earlier_version_loads(tmp_path, caplog):
    file = tmp_path / "old.yaml"
    file.write_text("gan: {data: stream, kimg: 3}\n")
    config = load(str(file))
    assert (config.gan.data_loading, config.gan.kimg) == ("stream", 3)
    assert "gan.data is called gan.data_loading now" in caplog.text
    assert load(str(file), ["gan.data_loading=memory"]).gan.data_loading == "memory"
    assert load("demo", ["gan.data=memory"]).gan.data_loading == "memory"


def test_a_setting_under_its_old_and_its_new_name_is_refused():
    with pytest.raises(ConfigError, match=r"gan\.data is called gan\.data_loading now; remove"):
        load("demo", ["gan.data=memory", "gan.data_loading=stream"])


def test_settings_of_another_method_are_refused_all_at_once():
    with pytest.raises(InvalidConfig) as caught:
        settings = ["gan.method=cgan", "gan.r1_gamma=5", "gan.augment=none", "gan.cgan_lr=1e-3"]
        load("demo", [*settings, "gan.kimgs=3", "gan.batch=0"])
    assert {issue.path for issue in caught.value.issues} == {
        *("gan.r1_gamma", "gan.augment", "gan.kimgs", "gan.batch")
    }
    with pytest.raises(InvalidConfig, match=r"gan\.cgan_lr.*method stylegan2-ada ignores it"):
        load("demo", ["gan.cgan_lr=1e-3"])


def test_an_override_of_the_method_leaves_out_what_the_file_sets_for_its_own(tmp_path):
    config = load("demo", ["gan.method=cgan"])
    assert (config.gan.w_dim, config.gan.r1_gamma) == (512, None)  # the preset's: 64 and 0.5
    assert (config.gan.kimg, config.gan.z_dim) == (load("demo").gan.kimg, 64)
    file = tmp_path / "mixed.yaml"
    file.write_text("gan: {method: cgan, w_dim: 64}\n")
    with pytest.raises(InvalidConfig, match=r"gan\.w_dim"):
        load(str(file))
    with pytest.raises(InvalidConfig, match=r"gan\.w_dim"):
        load(str(file), ["gan.method=cgan"])
    assert load(str(file), ["gan.method=stylegan2-ada"]).gan.w_dim == 64


def test_networks_of_no_channels_are_refused():
    with pytest.raises(InvalidConfig, match=r"gan\.channel_base: given 64.*data\.resolution, 128"):
        load("iqoth128", ["gan.channel_base=64"])


def test_a_teacher_that_validation_images_would_stop_is_refused():
    with pytest.raises(InvalidConfig, match=r"teacher\.early_stopping: given 3, allowed: null"):
        load("demo", ["teacher.early_stopping=3"])
    assert load("demo", ["classifier.early_stopping=3"]).classifier.early_stopping == 3


def test_what_may_change_between_attempts():
    old = load("demo").to_mapping()
    operational = [
        *("gan.compile=true", "gan.data_loading=stream", "gan.data_memory_gb=3"),
        *("gan.keep_checkpoints=5", "gan.snapshot_kimg=1", "data.allow_overlap=true"),
        *("compute.workers=7", "compute.max_failures=-1", "tracking.experiment=other"),
        *("about.cost=none", "metrics.use_best=true", "metrics.every=3", "metrics.budget=0.5"),
        *("metrics.extractor=timm:inception_v3", "synthesis.batch=7", "data.max_bad_fraction=1"),
    ]
    assert load("demo", operational).changed_since(old) == []
    changes = ["data.resolution=64", "gan.seed=3", "classifier.lr=1e-4", "data.phantom.seed=1"]
    assert load("demo", changes).changed_since(old) == [
        *("data.resolution", "data.phantom.seed", "gan.seed", "classifier.lr")
    ]


def test_what_an_earlier_version_wrote_counts_as_the_same(caplog):
    old = load("demo", ["gan.method=cgan"]).to_mapping()
    old["gan"] |= {"data": old["gan"].pop("data_loading"), "w_dim": 64, "r1_gamma": 0.5}
    del old["data"]["max_bad_fraction"], old["classifier"]["seeds"], old["tracking"]
    old["later"], old["gan"]["later"] = {"setting": 1}, 2
    assert load("demo", ["gan.method=cgan"]).changed_since(old) == ["classifier.seeds"]
    assert load("demo", ["gan.method=cgan", "classifier.seeds=1"]).changed_since(old) == []
    assert caplog.text == ""  # nobody edits a work directory's own file


GENERATING = ["prepare", "train-teacher", "train-gan"]


@pytest.mark.parametrize(
    ("changed", "first", "kept"),
    [
        (["data.resolution"], "prepare", []),
        (["gan.kimg"], "train-gan", ["prepare", "train-teacher"]),
        (["teacher.lr"], "train-teacher", ["prepare", "train-gan"]),
        (["labels.bias"], "synthesize", GENERATING),
        (["synthesis.ratio"], "synthesize", GENERATING),
        (["classifier.lr"], "train-classifier", [*GENERATING, "synthesize", "audit"]),
        (["data.normal_class"], "train-classifier", [*GENERATING, "synthesize", "audit"]),
    ],
)
def test_a_setting_redoes_the_steps_that_read_it_and_those_after(changed, first, kept):
    redo = steps_to_redo(changed)
    assert redo[0] == first
    assert sorted([*kept, *redo]) == sorted(STEP_INPUTS)


def test_every_section_that_changes_results_is_of_a_step():
    read = {path.split(".")[0] for paths in STEP_SECTIONS.values() for path in paths}
    assert set(STEP_SECTIONS) == set(STEP_INPUTS)
    others = {"about", "curation", "compare", "sweep", "promotion"}
    others |= {"tracking", "compute"}
    assert set(field_types(PipelineConfig)) - read == others
    for name, entry in SETTINGS.items():
        assert bool(steps_to_redo([name])) or entry.is_operational, name
