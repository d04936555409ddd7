"""The figure of a set's labels: what it shows, and that it stands alone."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from gemix.labels import SAMPLERS, LabelConfig, sample_labels
from gemix.report.content import gather
from gemix.report.label_figure import POINTS, draw_set, label_figure

NAMES = tuple(f"class <${index}$>" for index in range(20))


def drawn(method: str, classes: int = 3, count: int = 500, **settings) -> ElementTree.Element:
    theta, dominant = sample_labels(
        method, LabelConfig(**settings), count=count, classes=classes, seed=0
    )
    return parsed(label_figure(theta, dominant, NAMES[:classes], f"{method} & co"))


def parsed(data: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(data)
    for element in root.iter():
        element.tag = element.tag.removeprefix("{http://www.w3.org/2000/svg}")
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text for element in root.iter("text")]


def points(root: ElementTree.Element) -> int:
    """Markers on the simplex: they have no outline, ticks have one."""
    return sum("fill: var(--series" in (e.get("style") or "") for e in root.iter("use"))


@pytest.mark.parametrize("method", SAMPLERS)
def test_every_sampler_has_a_figure_that_stands_alone(method):
    root = drawn(method)
    style = root.find("style").text
    used = set(re.findall(r"var\((--[\w-]+)\)", ElementTree.tostring(root, "unicode")))
    assert all(style.count(f"{variable}:") == 2 for variable in used - {"--font"})  # light, dark
    assert not {"script", "image", "foreignObject"} & {element.tag for element in root.iter()}
    assert f"{method} & co" in texts(root)


def test_the_simplex_has_a_point_a_label_and_equal_ones_once():
    assert points(drawn("dirichlet")) == POINTS
    assert points(drawn("dirichlet", count=50)) == 50
    assert points(drawn("onehot")) == 3
    # 11 places on each of 3 sides that meet in the corners, middles once for either class
    assert points(drawn("pair_path")) == 3 * 9 + 3 + 3


@pytest.mark.parametrize("classes", [2, 3, 5, 20])
def test_the_axes_end_at_uniform_and_one_hot(classes):
    words = texts(drawn("softmax", classes, noise_std=0, bias=0))
    assert {f"1/{classes}", f"log {classes}"} <= set(words)
    assert f"Top weight, mean {1 / classes:.2f}" in words
    assert f"Entropy in nats, mean {math.log(classes):.2f}" in words
    onehot = texts(drawn("onehot", classes))
    assert {"Top weight, mean 1.00", "Entropy in nats, mean 0.00"} <= set(onehot)


def test_classes_are_named_with_their_shares():
    words = texts(drawn("onehot", count=400, class_weights=(0, 1, 0)))
    corners = [word for word in words if word.startswith("class")]
    assert corners == ["class <$0$> 0%", "class <$1$> 100%", "class <$2$> 0%"]
    legend = texts(drawn("softmax", 5))
    assert set(NAMES[:5]) <= set(legend)
    assert not set(NAMES) & set(texts(drawn("softmax", 20)))  # more classes than colours


def test_the_figure_of_a_set_counts_its_labels(finished):
    store = Store(finished.synthetic("softmax"))
    words = texts(parsed(draw_set(store, Manifest.load(store))))
    assert "softmax: 30 labels" in words
    assert "Top weight, mean 0.76" in words
    theta = np.array([0.76, 0.12, 0.12])
    assert f"Entropy in nats, mean {-(theta * np.log(theta)).sum():.2f}" in words


def test_a_damaged_figure_is_named(finished, config):
    store = Store(finished.synthetic("onehot"))
    store.write_bytes("labels.svg", store.read_bytes("labels.svg")[:-100])
    with pytest.raises(DataError, match=r"onehot/labels\.svg: damaged .*delete it to leave it out"):
        gather(finished, config)
