"""The part of the page about the real images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.dataset_card.contact_sheet import contact_sheet
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.content import gather
from gemix.report.page import render

CLASSES = ("normal", "pneumonia", "cancer")
ORIGIN = {
    "source": "folder",
    "listed": 120,
    "found": 110,
    "quarantined": 23,
    "reasons": [],
    "left_out": {"slice_step": 7},
    "duplicates": {"exact": 5, "label_conflicts": 3, "joined": 2},
    "grouping": "file order and near duplicates",
    "groups": {split: dict.fromkeys(CLASSES, 3 + i) for i, split in enumerate(("train", "test"))},
    "histograms": {name: [60 - 10 * i, *range(63)] for i, name in enumerate(CLASSES)},
    "notes": [],
}
SHEET = contact_sheet({name: [(np.full((9, 9), 60, np.uint8),) * 2] for name in CLASSES})


def describe(workspace: Workspace, changes: dict, classes: tuple[str, ...] = CLASSES) -> None:
    """Puts these facts into the manifest, and renames its classes."""
    store = Store(workspace.data)
    tree = store.read_json("manifest.json")
    names = dict(zip(tree["classes"], classes, strict=True))
    tree["classes"] = list(classes)
    tree["counts"] = {
        split: {names[name]: count for name, count in of.items()}
        for split, of in tree["counts"].items()
    }
    tree["origin"] = changes
    store.write_json("manifest.json", tree)


def section(workspace: Workspace, config) -> str:
    page = render(gather(workspace, config))
    start = page.index("<h2>Data</h2>")
    return page[start : page.index("</section>", start)]


def test_the_section_says_what_the_card_says(finished, config):
    describe(finished, ORIGIN)
    part = section(finished, config)
    assert "72 images of 32 × 32 pixels, made from class folders." in part
    assert '<tr><th>normal</th><td class="n">20<small>3</small></td>' in part
    assert '<td class="n">24<small>7</small></td>' in part
    for what, count in (("data.slice_step", 7), ("exact copies of others", 5), ("label", 3)):
        assert f'{what}</td><td class="n">{count}</td>' in part
    assert "Who gave the labels, and how surely: not recorded." in part


def test_unknown_patients_are_warned_of_and_known_ones_named(finished, config):
    describe(finished, ORIGIN)
    assert '<p class="warning">The patients are not known.' in section(finished, config)
    describe(finished, ORIGIN | {"grouping": "patients"})
    part = section(finished, config)
    assert "warning" not in part
    assert "Images, and below them patients." in part


def test_grey_levels_are_drawn_with_a_line_and_a_mean_for_each_class(finished, config):
    describe(finished, ORIGIN)
    part = section(finished, config)
    assert part.count("<svg") == 1
    chart = part[part.index("<svg") : part.index("</svg>")]
    assert [f"var(--series-{index})" in chart for index in range(5)] == [0, 1, 1, 1, 0]
    for index, name in enumerate(CLASSES, 1):
        assert f'background: var(--series-{index})"></span>{name}</th>' in part


def test_the_contact_sheet_is_in_the_page(finished, config):
    Store(finished.data).write_bytes("contact_sheet.png", SHEET)
    part = section(finished, config)
    start = part.index('src="data:image/png;base64,') + len('src="data:image/png;base64,')
    png = base64.b64decode(part[start : part.index('"', start)])
    assert png == SHEET
    assert Image.open(io.BytesIO(png)).size[0] > 1000


def test_what_an_older_set_does_not_record_is_named(finished, config):
    describe(finished, {})
    part = section(finished, config)
    words = (
        "groups by class and split, how groups were found, duplicates, grey levels, contact sheet"
    )
    assert f"This set does not record: {words}." in part
    assert "<svg" not in part and "warning" not in part and "None" not in part
    describe(finished, ORIGIN)
    Store(finished.data).write_bytes("contact_sheet.png", SHEET)
    assert "does not record" not in section(finished, config)


def test_names_that_mean_something_to_a_template_or_a_chart_are_shown_as_they_are(finished, config):
    names = ("0", "v1.2 $x", "_<b>正常")
    groups = {split: dict.fromkeys(names, 1) for split in ("train", "test")}
    histograms = dict.fromkeys(names, [1] * 64)
    describe(finished, ORIGIN | {"groups": groups, "histograms": histograms}, names)
    part = section(finished, config)
    for shown in ("0", "v1.2 $x", "_&lt;b&gt;正常"):
        assert f'<tr><th>{shown}</th><td class="n">20<small>1</small></td>' in part
        assert f"</span>{shown}</th>" in part


def test_a_damaged_contact_sheet_is_told(finished, config):
    Store(finished.data).write_bytes("contact_sheet.png", b"not a picture")
    with pytest.raises(DataError, match=r"contact_sheet\.png: damaged .*--overwrite, or delete it"):
        gather(finished, config)
