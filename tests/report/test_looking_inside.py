"""The section that looks inside the best classifier."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.io.explanation_record import Explanation, Projection, ShownImage
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.content import gather
from gemix.report.page import render
from tests.report.conftest import SIZE, draw, write_png

EXPLANATION = Explanation(
    classifier="dirichlet-seed1",
    tested=267,
    missed=31,
    images=(
        *(
            ShownImage(label=label, predicted=(label + 1) % 3, probability=0.99 - 0.02 * index)
            for index, label in enumerate([2, 1, 1, 0, 2, 1, 2])
        ),
        *(ShownImage(label=label, predicted=label, probability=0.995) for label in range(3)),
    ),
    layer="layer2",
    cells=(4, 4),
)


def write_inside(workspace: Workspace, explanation: Explanation = EXPLANATION) -> None:
    """Write the records of an evaluation that had both packages."""
    store, rng = Store(workspace.evaluation), np.random.default_rng(0)
    count = len(explanation.images)
    rows = [np.hstack([draw(rng, np.eye(3)[one.label])[0] for one in explanation.images])]
    if explanation.layer:
        y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
        rows.append(
            np.hstack(
                [
                    255 * np.exp(-4 * ((x - a) ** 2 + (y - b) ** 2))
                    for a, b in rng.uniform(-0.6, 0.6, (count, 2))
                ]
            ).astype(np.uint8)
        )
    write_png(store, "explanation.png", np.vstack(rows))
    write_record(store, "explanation.json", explanation)
    counts = {"train": 600, "test": 150, "synthetic": 250}
    label = np.concatenate([np.arange(count) % 3 for count in counts.values()])
    angle = 2.1 * label
    places = 12 * np.stack([np.cos(angle), np.sin(angle)]) + 4 * rng.normal(size=(2, len(label)))
    projection = Projection(
        classifier="dirichlet-seed1",
        method="softmax",
        x=tuple(places[0].round(3).tolist()),
        y=tuple(places[1].round(3).tolist()),
        label=tuple(label.tolist()),
        source=tuple(np.repeat(list(counts), list(counts.values())).tolist()),
    )
    write_record(store, "projection.json", projection)


def section(page: str) -> str:
    start = page.index("<h2>Looking inside</h2>")
    return page[start : page.index("</section>", start)]


def test_an_evaluation_of_an_earlier_version_has_no_section(source):
    assert "Looking inside" not in source


def test_misses_are_shown_with_both_classes_and_the_probability(finished, config):
    write_inside(finished)
    found = section(render(gather(finished, config)))
    assert "31 of 267 predicted wrong" in found
    assert "<b>cancer</b> as <b>normal</b>, 99.0%" in found
    assert found.index("most confident misses") < found.index("Confident hits")
    assert found.count("<figure>") == 10 and found.count("<img") == 20  # each with its map
    assert found.count('alt="normal predicted as normal"') == 1
    assert "4 × 4 cells, the output of layer2" in found
    assert found.count("<svg") == 2
    assert "pip install" not in found and "no map" not in found
    # no patient and no file
    pictures = found[: found.index("<svg")]
    assert "test-" not in pictures and "scans/" not in pictures


def test_missing_packages_are_named_with_the_command_that_installs_them(finished, config):
    missing = ("captum", "openTSNE")
    without = dataclasses.replace(EXPLANATION, layer=None, cells=None, missing_packages=missing)
    write_inside(finished, without)
    Store(finished.evaluation).delete("projection.json")
    found = section(render(gather(finished, config)))
    assert "captum and openTSNE were not installed" in found
    assert "<code>pip install captum openTSNE</code>" in found
    assert found.count("<img") == 10 and "<svg" not in found
    assert "under its Grad-CAM map" not in found


def test_a_model_without_maps_is_said(finished, config):
    why = "VisionTransformer has no stage of 4 x 4 cells or more"
    write_inside(finished, dataclasses.replace(EXPLANATION, layer=None, cells=None, no_maps=why))
    assert f"There is no map for this model: {why}." in section(render(gather(finished, config)))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("explanation.json", lambda tree: tree.pop("images"), "images is missing"),
        ("explanation.json", lambda tree: tree["images"].pop(), r"explanation\.png is damaged"),
        ("explanation.json", lambda tree: tree["images"].clear(), "no image"),
        (
            "explanation.json",
            lambda tree: tree["images"][0].update(label=3),
            "a class outside 0 to 2",
        ),
        ("projection.json", lambda tree: tree.pop("label"), "label is missing"),
        ("projection.json", lambda tree: tree["x"].pop(), "differ in length"),
        ("projection.json", lambda tree: tree["label"].__setitem__(0, 7), "a class outside"),
    ],
)
def test_damaged_files_are_named(finished, config, name, change, words):
    write_inside(finished)
    store = Store(finished.evaluation)
    tree = store.read_json(name)
    change(tree)
    store.write_json(name, tree)
    with pytest.raises(DataError, match=words) as caught:
        gather(finished, config)
    assert name in str(caught.value)


@pytest.mark.parametrize("keep", [0, 40, 600])
def test_a_damaged_picture_is_named(finished, config, keep):
    write_inside(finished)
    store = Store(finished.evaluation)
    store.write_bytes("explanation.png", store.read_bytes("explanation.png")[:keep])
    with pytest.raises(DataError, match=r"explanation\.png is damaged"):
        gather(finished, config)
    store.delete("explanation.png")
    with pytest.raises(DataError, match=r"explanation\.png"):
        gather(finished, config)
