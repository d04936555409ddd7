from __future__ import annotations

import re

import numpy as np
import pytest

from gemix.data.dataset_card.markdown import card, escape, sparkline
from gemix.data.shards.manifest import Manifest, ShardEntry

CLASSES = ("normal", "cancer")
ORIGIN = {
    "source": "folder",
    "listed": 1240,
    "found": 1200,
    "quarantined": 7,
    "reasons": [
        {"source": "a/1.png", "reason": "truncated"},
        {"source": "a/2.png", "reason": "blank: every pixel has the value 0"},
        {"source": "b/3.png", "reason": "truncated"},
    ],
    "left_out": {"min_lung_fraction": 47},
    "duplicates": {"exact": 16, "label_conflicts": 4, "joined": 9},
    "grouping": "file order and near duplicates",
    "groups": {
        "train": {"normal": 31, "cancer": 23},
        "val": {"normal": 7, "cancer": 5},
        "test": {"normal": 8, "cancer": 6},
    },
    "histograms": {"normal": [3] + [0] * 62 + [1], "cancer": [0] * 32 + [5] + [0] * 31},
    "notes": ["left out 2 files that are no images: .txt"],
}


def manifest(origin: dict, classes: tuple[str, ...] = CLASSES, **preprocessing) -> Manifest:
    counts = {"train": (800, 100), "val": (90, 20), "test": (100, 20)}
    shards = [
        ShardEntry(
            name=f"{split}-00000.parquet",
            split=split,
            rows=sum(of),
            bytes=1,
            sha256="0" * 64,
            class_counts=of,
            content="1" * 64,
        )
        for split, of in counts.items()
    ]
    return Manifest.of(
        shards,
        kind="real",
        classes=classes,
        resolution=128,
        channels=1,
        preprocessing=preprocessing,
        origin=origin,
    )


def cells(text: str, first: str) -> list[str]:
    """The further cells of the first table row that begins with `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return line.removesuffix(" |").split(" | ")[1:]


def test_images_and_groups_are_counted_by_class_and_split():
    text = card(manifest(ORIGIN))
    assert cells(text, "normal") == ["800 (31)", "90 (7)", "100 (8)", "990 (46)"]
    assert cells(text, "cancer") == ["100 (23)", "20 (5)", "20 (6)", "140 (34)"]
    assert cells(text, "all") == ["900", "110", "120", "1,130"]
    assert "Images, and in brackets groups." in text


def test_the_way_from_the_source_to_the_set_is_accounted_for():
    text = card(manifest(ORIGIN))
    steps = {
        "listed by the source": "1,240",
        "found": "1,200",
        "left out by data.min_lung_fraction": "47",
        "set aside as unusable (quarantine.json)": "3",
        "left out as exact copies of others": "16",
        "set aside since their copies have another label": "4",
        "images in the set": "1,130",
    }
    assert {what: cells(text, what) for what in steps} == {k: [v] for k, v in steps.items()}


def test_reasons_are_counted_the_most_frequent_first_with_a_file_each():
    text = card(manifest(ORIGIN))
    assert cells(text, "truncated") == ["2", "a/1.png"]
    assert cells(text, "blank: every pixel has the value 0") == ["1", "a/2.png"]
    assert text.index("| truncated") < text.index("| blank")


def test_what_the_reasons_leave_out_is_said():
    many = [{"source": f"{n}.png", "reason": f"box {n} does not fit"} for n in range(100)]
    text = card(manifest(ORIGIN | {"reasons": many, "quarantined": 2500}))
    assert "the first 100 of 2,500 files, the 10 most frequent of 100:" in text
    assert len(re.findall(r"^\| box \d+ does not fit", text, re.MULTILINE)) == 10


def test_unknown_patients_are_a_warning_and_known_ones_are_not():
    unknown = card(manifest(ORIGIN))
    assert "> [!WARNING]\n> The patients are not known." in unknown
    assert "slices of one patient may still be in two splits" in unknown
    assert "Near duplicates joined 9 runs" in unknown
    known = card(manifest(ORIGIN | {"grouping": "patients"}))
    assert "WARNING" not in known
    assert "no patient is in two splits" in known
    assert "Images, and in brackets patients." in known


def test_mean_and_median_follow_from_the_histogram():
    text = card(manifest(ORIGIN))
    # three pixels of level 0 to 3, one of 252 to 255: 1.5 and 253.5 in the middle
    assert "| normal | 64 | 2 | `" in text
    assert "| cancer | 130 | 130 | `" in text


def test_a_class_without_pixels_has_no_histogram():
    text = card(manifest(ORIGIN | {"histograms": {"normal": [1] * 64, "cancer": [0] * 64}}))
    assert text.count("`█") == 1
    assert "nan" not in text


def test_windows_are_named_and_other_settings_shown():
    origin = ORIGIN | {"source": "dicom"}
    text = card(manifest(origin, windows=[[-500.0, 1400.0], [-600.0, 1500.0]], slice_step=2))
    assert cells(text, "windows") == [
        "lung (level −500 HU, width 1400 HU); level −600 HU, width 1500 HU"
    ]
    assert cells(text, "slice step") == ["2"]


def test_no_window_is_claimed_for_images_that_came_windowed():
    text = card(manifest(ORIGIN, windows=[[-500.0, 1400.0]]))
    assert cells(text, "windows") == ["not recorded: the scans came as images of 8 bits"]


@pytest.mark.parametrize("key", [*ORIGIN, None])
def test_a_manifest_that_lacks_a_part_makes_a_card_without_it(key):
    origin = {name: value for name, value in ORIGIN.items() if name != key} if key else {}
    text = card(manifest(origin))
    assert text.startswith("# Dataset card: ")
    assert "None" not in text and "\n\n\n" not in text
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert ("Grey levels" in titles) == ("histograms" in origin)
    assert ("Patients and groups" in titles) == ("grouping" in origin)
    assert ("Notes" in titles) == ("notes" in origin)
    assert titles[-1] == "What this card does not know"


def test_what_cannot_be_known_is_said_and_a_phantom_is_called_one():
    text = card(manifest(ORIGIN))
    for unknown in ("Consent", "Scanner", "Age, sex", "Who gave the labels"):
        assert unknown in text
    phantom = card(manifest(ORIGIN | {"source": "phantom", "grouping": "patients"}))
    assert "no scan of a person" in phantom
    assert "Consent" not in phantom


def test_names_cannot_break_the_tables():
    strange = ("a|b *c* <img>\nd", "正常_")
    counts = dict.fromkeys(strange, 1)
    text = card(
        manifest(
            ORIGIN
            | {
                "groups": dict.fromkeys(("train", "val", "test"), counts),
                "histograms": {name: [1] * 64 for name in strange},
                "reasons": [{"source": "x|y.png", "reason": "`bad`\n# title"}],
            },
            classes=strange,
        )
    )
    assert r"| a\|b \*c\* \<img\> d | 800 (1) |" in text
    assert "| 正常\\_ |" in text
    assert r"| \`bad\` \# title | 1 | x\|y.png |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(bars) == 1


def test_a_card_can_always_be_encoded():
    assert card(manifest(ORIGIN, classes=("\udcff", "b\u2028c"))).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b", "a_b"),
        ("__a__", r"\_\_a\_\_"),
        ("$x$ & ~y~", r"\$x\$ \& \~y\~"),
        ("\x1b[1m", r" \[1m"),
    ],
)
def test_special_characters_are_escaped_and_words_left_alone(text, shown):
    assert escape(text) == shown


def test_a_sparkline_shows_the_shape_beside_a_high_background():
    shares = np.zeros(64)
    shares[0] = 0.9
    shares[20:24] = 0.024
    shares[40] = 0.001
    line = sparkline(shares)
    assert len(line) == 32
    assert line[0] == "█" and line[10:12] == "██"
    assert line[20] == "▂" and set(line[21:]) == {"·"}
    assert sparkline(np.eye(64)[5]) == "··█" + 29 * "·"
