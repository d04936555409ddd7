"""Presets, files and overrides."""

from __future__ import annotations

import pytest
import yaml

from gemix.config import PipelineConfig, load, preset_names
from gemix.core.config_schema import InvalidConfig
from gemix.core.errors import ConfigError


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
        "gan.batch: given 0, allowed: an integer, from 1 to 1e9",
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
    ],
)
def test_what_cannot_be_read_is_said(name, overrides, word):
    with pytest.raises(ConfigError, match=word):
        load(name, overrides)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just words"])
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
        "classifier",
        "tracking",
        "compute",
    }


@pytest.mark.parametrize(("count", "ratio", "images"), [(None, 0.5, 50), (7, 0.5, 7), (None, 0, 1)])
def test_the_number_of_synthetic_images(count, ratio, images):
    config = load("demo", [f"synthesis.count={count or 'null'}", f"synthesis.ratio={ratio}"])
    assert config.synthesis.images(100) == images
