"""Settings of the data: where the scans are, how they become images, how they are split."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal

from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Count,
    Fraction,
    Positive,
    PowerOfTwo,
    Range,
)
from gemix.data.preprocessing.windows import WINDOWS, parse_window

GREY_SOURCES = ("folder", "covidx", "medmnist", "parquet")
"""Those of 8-bit images, which no window applies to."""

NAMELESS_SOURCES = ("folder", "nifti")
"""Those that know patients by the names of files alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig(Config):
    """The digital chest phantom.

    `conspicuity` scales the lesions' contrast: 0 hides them, 1 is plain to see.
    """

    patients_per_class: Positive = 40
    slices_per_patient: Positive = 6
    conspicuity: Annotated[float, Range(low=0, high=1)] = 0.5
    seed: Annotated[int, Range(low=0)] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Where the scans are, how they become images, how they are split.

    `labels` is the CSV file that gives DICOM patients or series their class. `patient_pattern` is a
    regular expression whose first group, found in a file's path, names the patient; for sources of
    files without names of patients. Of each patient's slices every `slice_step`-th is used, and of
    those the ones whose lungs fill at least `min_lung_fraction` of the body. With `folds` above 1
    the test set is one fold of so many, number `fold`, instead of `test_fraction`. `splits_from` is
    the directory of an earlier set of the archive, whose scans stay on their sides. `shard_mb` are
    megabytes of pixels in a shard, whose file is a third to two thirds of that. `allow_overlap`
    lets training and test share patients or images, which is refused otherwise. `windows` turn
    Hounsfield units into grey: names (:data:`gemix.data.preprocessing.windows.WINDOWS`) or
    ``level/width`` in HU; one makes grey images, three make the three channels of an image. Images
    of 8 bits are windowed already. `normal_class` names the class of the healthy, for the
    missed-disease rate; null means the class called "normal" in any spelling, if there is one.
    """

    source: Literal["folder", "covidx", "dicom", "nifti", "medmnist", "parquet", "phantom"] = (
        "phantom"
    )
    path: str = ""
    labels: str = ""
    patient_pattern: str = ""
    slice_step: Positive = 1
    min_lung_fraction: Fraction = 0.0
    resolution: Annotated[int, PowerOfTwo(16, 1024)] = 128
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    split_seed: Annotated[int, Range(low=0)] = 0
    folds: Count = 0
    fold: Count = 0
    splits_from: str = ""
    allow_overlap: bool = False
    windows: tuple[str, ...] = ("lung",)
    normal_class: str | None = None
    max_bad_fraction: Fraction = 0.05
    shard_mb: Annotated[float, Range(low=0.001)] = 512
    phantom: PhantomConfig = PhantomConfig()

    def validate(self) -> list[ConfigIssue]:
        """A path where one is needed; windows that exist; a training share that is left over."""
        problems = self._window_problems() + self._split_problems()
        if self.source != "phantom" and not self.path:
            problems.append(
                ConfigIssue("path", self.path, f"a folder or URL (data.source is {self.source})")
            )
        if self.source == "dicom" and not self.labels:
            allowed = "a CSV file of patient (or series) and class (data.source is dicom)"
            problems.append(ConfigIssue("labels", self.labels, allowed))
        return problems

    @property
    def levels_and_widths(self) -> list[tuple[float, float]]:
        """Level and width of each window, in HU."""
        return [window for window in map(parse_window, self.windows) if window]

    @property
    def test_share(self) -> float:
        """What part of the groups is tested on: ``test_fraction``, or one fold."""
        return 1 / self.folds if self.folds else self.test_fraction

    def _split_problems(self) -> list[ConfigIssue]:
        problems = []
        if self.folds == 1:
            problems.append(ConfigIssue("folds", self.folds, "0 for none, or at least 2"))
        elif self.val_fraction + self.test_share >= 1:
            name = "folds" if self.folds else "test_fraction"
            allowed = f"a test share of less than {1 - self.val_fraction:g}"
            problems.append(ConfigIssue(name, getattr(self, name), allowed))
        if self.folds and self.splits_from:
            allowed = f"nothing: data.folds={self.folds} draws splits of its own"
            problems.append(ConfigIssue("splits_from", self.splits_from, allowed))
        if self.fold >= max(self.folds, 1):
            problems.append(ConfigIssue("fold", self.fold, f"less than data.folds, {self.folds}"))
        if self.patient_pattern and self.source not in NAMELESS_SOURCES:
            allowed = f"nothing: {self.source} names its patients itself, or has none"
            problems.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            allowed = f"a regular expression ({error})"
            problems.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        else:
            if self.patient_pattern and not groups:
                allowed = "a regular expression with a group: (P[0-9]+)_"
                problems.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        return problems

    def _window_problems(self) -> list[ConfigIssue]:
        known = f"{', '.join(WINDOWS)} or level/width in HU, as in -600/1500"
        problems = [
            ConfigIssue(f"windows.{index}", window, known)
            for index, window in enumerate(self.windows)
            if parse_window(window) is None
        ]
        if len(self.windows) not in (1, 3):
            problems.append(ConfigIssue("windows", list(self.windows), "one window or three"))
        elif len(self.windows) > 1 and self.source in GREY_SOURCES:
            allowed = f"one window: {self.source} holds grey images, windowed already"
            problems.append(ConfigIssue("windows", list(self.windows), allowed))
        return problems
