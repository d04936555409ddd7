"""Settings that a late step would fail on are refused before the first one starts."""

from __future__ import annotations

import pytest

from gemix.config import load
from gemix.core.errors import ConfigError, DataError
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.pipeline import run_pipeline
from gemix.steps.prepare import prepare


@pytest.mark.parametrize(
    ("model", "words"),
    [("inception_v3", r"1 x 16 x 16 images.*larger data\.resolution"), ("resnt50", "did you mean")],
)
def test_a_classifier_that_cannot_take_the_images(model, words, tmp_path):
    config = load("demo", ["data.resolution=16", f"classifier.model={model}"])
    with pytest.raises(ConfigError, match=words):
        run_pipeline(config, Workspace.at(tmp_path))
    assert not Store(tmp_path).list(recursive=True)


def test_a_healthy_class_that_is_none_of_the_classes(tmp_path):
    config = load("demo", ["data.resolution=16", "data.normal_class=helthy"])
    with pytest.raises(DataError, match=r"data\.normal_class 'helthy' is none of the classes: "):
        prepare(config, Workspace.at(tmp_path))
    assert not Store(tmp_path).list(recursive=True)
