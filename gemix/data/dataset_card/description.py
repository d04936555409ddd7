"""Description of a real set in rows and plain sentences, for the dataset card and the report.

Every part of ``Manifest.origin`` may be missing, as it is in older sets; what needs it is then
empty, and :attr:`Description.missing` names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gemix.data.preprocessing.windows import WINDOWS
from gemix.data.shards.manifest import SPLITS, Manifest
from gemix.data.sources.registry import SOURCES

PATIENTS = "patients"
"""``origin["grouping"]`` where the source names the patients."""
NEIGHBOURS = "file order and near duplicates"
"""``origin["grouping"]`` where it does not."""

_RULES = {
    "blank": "left out as blank",
    "mask": "left out as segmentation masks (two grey levels)",
}
_PARTS = {
    "groups": "groups by class and split",
    "grouping": "how groups were found",
    "duplicates": "duplicates",
    "histograms": "grey levels",
}
_CAVEAT = (
    "The patients are not known. Images were grouped by the order of their files and by how alike "
    "they look, so slices of one patient may still be in two splits, and results on the "
    "test split may be better than on new patients. If the file names tell the patients, name them "
    "with data.patient_pattern."
)
_STAND_IN = (
    "The patients are not known: somebody who was scanned more than once may be in two "
    "splits, and results on the test split may be better than on new patients."
)
_DRAWN = "Drawn by a program: no scan of a person, and no proof of anything about patients."
_UNKNOWN = (
    "Consent, ethics approval and licence: not recorded. Ask those who gave the scans.",
    "Scanner, dose, contrast agent, slice thickness and reconstruction: not recorded. Where they "
    "differ between classes, a classifier may learn the scanner instead of the disease.",
    "Age, sex and origin of the patients: not recorded. Nobody has checked for whom results hold.",
    "Who gave the labels, and how surely: not recorded. They are taken as the source has them.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """A reason for setting files aside, the number of files, and one of them."""

    text: str
    count: int
    example: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Images and groups of a class.

    Attributes:
        name: name of the class.
        images: number in each split, then of all.
        groups: likewise; None where they are not recorded.
    """

    name: str
    images: tuple[int, ...]
    groups: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreyLevels:
    """The grey levels of a class's images.

    Attributes:
        shares: float64 [64], share of the pixels of levels 4k to 4k + 3.
        mean, median: 0 to 255, known to within 2 levels.
    """

    shares: np.ndarray
    mean: float
    median: float

    @classmethod
    def of(cls, counts: Sequence[int]) -> Self:
        """Compute them from numbers of pixels, not all 0, in bins of equal width."""
        shares = np.array(counts, np.float64) / sum(counts)
        middles = (np.arange(len(shares)) + 0.5) * 256 / len(shares) - 0.5
        half = np.searchsorted(shares.cumsum(), 0.5)
        return cls(shares=shares, mean=float(shares @ middles), median=float(middles[half]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """Description of a real set.

    Attributes:
        manifest: manifest of the set; all else follows from it.
    """

    manifest: Manifest

    @property
    def source(self) -> str:
        """Source of the images, in words."""
        name = self.manifest.origin.get("source")
        if name is None:
            return "a source that is not recorded"
        return SOURCES[name].title if name in SOURCES else name

    @property
    def group_word(self) -> str:
        """Name of the groups: "patients" where they are known, else "groups"."""
        return PATIENTS if self.manifest.origin.get("grouping") == PATIENTS else "groups"

    @property
    def grouping(self) -> str | None:
        """Sentence on how groups were found."""
        found = self.manifest.origin.get("grouping")
        if found is None:
            return None
        if found == PATIENTS:
            text = "The source names the patient of every image; no patient is in two splits."
        elif found == NEIGHBOURS:
            text = f"Groups of images were found by {found}; no group is in two splits."
        else:
            text = f"The groups are {found}; none is in two splits."
        joined = (self.manifest.origin.get("duplicates") or {}).get("joined", 0)
        if joined:
            runs = plural(joined, "run")
            text += f" Near duplicates joined {runs} of neighbouring files to others."
        return text

    @property
    def warning(self) -> str | None:
        """A warning where groups stand in for patients who are not known."""
        found = self.manifest.origin.get("grouping", PATIENTS)
        return None if found == PATIENTS else _CAVEAT if found == NEIGHBOURS else _STAND_IN

    @property
    def selection_counts(self) -> list[tuple[str, int]]:
        """Numbers from the scans that were listed to the images of the set, step by step."""
        origin = self.manifest.origin
        left_out, copies = origin.get("left_out") or {}, origin.get("duplicates") or {}
        unusable = origin.get("quarantined")
        if unusable is not None:  # those of two labels are listed there too
            unusable -= copies.get("label_conflicts") or 0
        rows = [
            ("listed by the source", origin.get("listed")),
            ("found", origin.get("found")),
            *((_rule(name), count) for name, count in left_out.items()),
            ("set aside as unusable (quarantine.json)", unusable),
            ("left out as exact copies of others", copies.get("exact")),
            ("set aside since their copies have another label", copies.get("label_conflicts")),
            ("images in the set", self.manifest.images()),
        ]
        return [(what, count) for what, count in rows if count is not None]

    @property
    def grey_levels(self) -> dict[str, GreyLevels]:
        """Histogram, mean and median of each class that has pixels."""
        found = self.manifest.origin.get("histograms") or {}
        return {name: GreyLevels.of(counts) for name, counts in found.items() if sum(counts)}

    @property
    def counts(self) -> list[ClassCounts]:
        """Images and groups of each class."""
        groups = self.manifest.origin.get("groups")
        return [
            ClassCounts(
                name=name,
                images=_with_sum(self.manifest.counts[split][name] for split in SPLITS),
                groups=_with_sum(groups.get(split, {}).get(name, 0) for split in SPLITS)
                if groups
                else None,
            )
            for name in self.manifest.classes
        ]

    @property
    def totals(self) -> tuple[int, ...]:
        """Images of each split, then of all."""
        return _with_sum(self.manifest.images(split) for split in SPLITS)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Name and value of every setting of the preparation."""
        rows = []
        for name, value in self.manifest.preprocessing.items():
            if name == "windows" and self._is_grey:
                text = "not recorded: the scans came as images of 8 bits"
            elif name == "windows":
                text = "; ".join(_window(*window) for window in value)
            elif isinstance(value, list | tuple):
                text = ", ".join(map(str, value))
            else:
                text = str(value)
            rows.append((name.replace("_", " "), text))
        return rows

    @property
    def _is_grey(self) -> bool:
        """Whether the scans were grey images, which no window applied to."""
        name = self.manifest.origin.get("source")
        return name in SOURCES and not SOURCES[name].is_hounsfield

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that prepare wrote about the scans."""
        return tuple(self.manifest.origin.get("notes") or ())

    @property
    def limits(self) -> list[str]:
        """Facts about the set that neither the manifest nor this program knows."""
        if self.manifest.origin.get("source") == "phantom":
            return [_DRAWN]
        return list(_UNKNOWN)

    @property
    def missing(self) -> list[str]:
        """Names of what this manifest does not record."""
        return [words for key, words in _PARTS.items() if key not in self.manifest.origin]


def reasons(quarantine: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """Count the reasons for setting files aside, the most frequent first.

    Args:
        quarantine: mappings with `source` and `reason`, as in quarantine.json.
    """
    files: dict[str, list[str]] = {}
    for entry in quarantine:
        files.setdefault(entry["reason"], []).append(entry["source"])
    found = [Reason(text=text, count=len(of), example=of[0]) for text, of in files.items()]
    return sorted(found, key=lambda reason: -reason.count)


def plural(count: int, what: str) -> str:
    """Return the number and the word, in the plural where it is not one."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _with_sum(counts: Iterable[int]) -> tuple[int, ...]:
    counts = tuple(counts)
    return (*counts, sum(counts))


def _rule(name: str) -> str:
    return _RULES.get(name, f"left out by data.{name}")


def _window(level: float, width: float) -> str:
    names = [name for name, window in WINDOWS.items() if window == (level, width)]
    text = f"level {level:g} HU, width {width:g} HU"
    return (f"{names[0]} ({text})" if names else text).replace("-", "−")
