"""The dataset card: contents of a shard set as Markdown, written from its manifest.

The sections follow "Datasheets for Datasets" (Gebru et al., 2021) as far as a program can answer
its questions; the last section names those that it cannot.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from gemix.data.dataset_card.contact_sheet import CONTACT_SHEET
from gemix.data.dataset_card.description import Description, plural, reasons
from gemix.data.shards.manifest import SPLITS, Manifest

CARD = "CARD.md"

_BLOCKS = "▁▂▃▄▅▆▇█"
_BINS = 32
_REASONS = 10
# an underscore within a word is plain text
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_]))")


def card(manifest: Manifest) -> str:
    """Write the card of a real set in GitHub's Markdown, without what an older manifest lacks."""
    about = Description(manifest=manifest)
    sections = [
        f"# Dataset card: {escape(about.source)}",
        _summary(about),
        _counts(about),
        _grouping(about),
        _left_out(about),
        _intensity(about),
        section("Before and after", f"![contact sheet]({CONTACT_SHEET})"),
        section("Preprocessing", table(("Setting", "Value"), about.settings, align="ll")),
        section("Notes", bullets(about.notes)),
        section("What this card does not know", bullets(about.limits)),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def escape(text: str) -> str:
    """Escape a text so that Markdown shows it unchanged on one line, without control characters."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    # file names that are not valid UTF-8 hold lone surrogates, which no file can be written with
    plain = plain.encode("utf-8", "replace").decode()
    return _SPECIAL.sub(r"\\\1", plain)


def sparkline(shares: np.ndarray) -> str:
    """Draw a histogram in 32 characters: heights grow with the root of the share, · is empty.

    The highest bin, mostly the background, is cut to the height of the second.

    Args:
        shares: [n], at least 0; n a multiple of 32.
    """
    bins = np.sqrt(np.asarray(shares).reshape(_BINS, -1).sum(axis=1))
    highest, second = np.sort(bins)[[-1, -2]]
    steps = np.ceil(bins / (second or highest) * len(_BLOCKS)).astype(int)
    return "".join("·" if step == 0 else _BLOCKS[min(step, len(_BLOCKS)) - 1] for step in steps)


def _summary(about: Description) -> str:
    manifest = about.manifest
    size, depth = manifest.resolution, "grey" if manifest.channels == 1 else "three channels"
    return (
        f"{plural(manifest.images(), 'image')} of {size} × {size} pixels "
        f"({depth}, 8 bits a channel) in {len(manifest.classes)} classes, made from "
        f"{escape(about.source)}.\n\n"
        f"Content digest: `{manifest.digest}`"
    )


def _counts(about: Description) -> str:
    """Tabulate images, and groups where they are recorded, by class and split."""
    rows = []
    for of in about.counts:
        cells = [f"{count:,}" for count in of.images]
        if of.groups is not None:
            cells = [f"{cell} ({count:,})" for cell, count in zip(cells, of.groups, strict=True)]
        rows.append((of.name, *cells))
    rows.append(("all", *(f"{total:,}" for total in about.totals)))
    recorded = about.counts[0].groups is not None
    note = f"Images, and in brackets {about.group_word}.\n\n" if recorded else ""
    return section("Images", note + table(("Class", *SPLITS, "all"), rows, align="lrrrr"))


def _grouping(about: Description) -> str:
    found, warning = about.grouping, about.warning
    warning = f"\n\n> [!WARNING]\n> {escape(warning)}" if warning else ""
    return section("Patients and groups", escape(found) + warning if found else "")


def _left_out(about: Description) -> str:
    steps = [(what, f"{count:,}") for what, count in about.selection_counts]
    text = table(("Step", "Number"), steps, align="lr")
    listed = about.manifest.origin.get("reasons") or ()
    found = reasons(listed)
    if found:
        total = about.manifest.origin.get("quarantined", len(listed))
        which = f"the first {len(listed)} of {total:,} files" if total > len(listed) else ""
        most = f"the {_REASONS} most frequent of {len(found)}" if len(found) > _REASONS else ""
        text += f"\n\n{', '.join(filter(None, ('Why files were set aside', which, most)))}:\n\n"
        rows = [(reason.text, f"{reason.count:,}", reason.example) for reason in found[:_REASONS]]
        text += table(("Reason", "Files", "One of them"), rows, align="lrl")
    return section("From the source to the set", text)


def _intensity(about: Description) -> str:
    levels = about.grey_levels
    if not levels:
        return ""
    rows = [
        f"| {escape(name)} | {found.mean:.0f} | {found.median:.0f} | `{sparkline(found.shares)}` |"
        for name, found in levels.items()
    ]
    head = ["| Class | Mean | Median | Black (0) to white (255) |", "| --- | ---: | ---: | --- |"]
    note = (
        "Grey levels of the prepared images, all splits together. Heights grow with the root of "
        "the number of pixels, the highest one cut to the second; · is none. Where classes differ "
        "here by more than their disease, a classifier can tell them apart by brightness alone."
    )
    return section("Grey levels", f"{note}\n\n" + "\n".join((*head, *rows)))


def section(title: str, text: str) -> str:
    """Return the text under a heading; "" without text."""
    return f"## {title}\n\n{text}" if text else ""


def bullets(sentences: Iterable[str]) -> str:
    """Write a list of escaped sentences."""
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Write a table of escaped cells, a letter of `align` for each column; "" without rows."""
    lines = [" | ".join(map(escape, row)) for row in rows]
    rule = " | ".join({"l": "---", "r": "---:"}[side] for side in align)
    return "\n".join(f"| {line} |" for line in (" | ".join(head), rule, *lines)) if lines else ""
