"""Settings of the data: where the scans are, how they become images, how they are split."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal

from gemix.core.config_schema import (
    Config,
    ConfigIssue,
    Fraction,
    Location,
    Operational,
    PowerOfTwo,
    Range,
    Seed,
)
from gemix.data.preprocessing.windows import WINDOWS, parse_window
from gemix.data.sources.registry import SOURCES


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig(Config):
    """The digital chest phantom."""

    patients_per_class: Annotated[int, Range(1, 1_000_000), "Patients in each class."] = 40
    slices_per_patient: Annotated[int, Range(1, 10_000), "Slices of each patient."] = 6
    conspicuity: Annotated[
        Fraction, "Contrast of the lesions: 0 hides them, 1 makes them plain to see."
    ] = 0.5
    seed: Annotated[Seed, "Seed of anatomy, lesions and noise."] = 0
    noise: Annotated[
        float, Range(0.0, 100.0), "The scanner's noise, as a multiple of the usual one."
    ] = 1.0
    field_of_view: Annotated[
        float, Range(0.5, 4.0), "The scanner's field of view, as a multiple of the usual one."
    ] = 1.0
    contrast_agent: Annotated[
        float,
        Range(0.0, 5.0),
        "Enhancement of blood in patients with contrast agent, as a multiple of the usual one.",
    ] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Where the scans are, how they become images, how they are split."""

    source: Annotated[
        Literal[tuple(SOURCES)],  # type: ignore[valid-type]
        "Format of the scans, or the built-in phantom.",
    ] = "phantom"
    path: Annotated[str, Location(), "Folder, file or s3:// URL of the scans."] = ""
    labels: Annotated[
        str, Location(), "dicom: CSV file that gives patients or series their class."
    ] = ""
    patient_pattern: Annotated[
        str, "folder, nifti: regular expression whose first group, found in a path, is the patient."
    ] = ""
    slice_step: Annotated[int, Range(1, 10_000), "Use every n-th slice of each patient."] = 1
    min_lung_fraction: Annotated[
        Fraction, "Leave out slices whose lungs fill a smaller share of the body."
    ] = 0.0
    resolution: Annotated[int, PowerOfTwo(16, 1024), "Side of the square images, in pixels."] = 128
    val_fraction: Annotated[Fraction, "Share of the patients in the validation set."] = 0.15
    test_fraction: Annotated[Fraction, "Share of the patients in the test set."] = 0.2
    split_seed: Annotated[Seed, "Seed of the splits."] = 0
    folds: Annotated[
        int, Range(0, 1000), "Number of cross-validation folds, instead of test_fraction; 0: none."
    ] = 0
    fold: Annotated[int, Range(0, 999), "The fold to test on, from 0."] = 0
    splits_from: Annotated[
        str,
        Location(),
        "Directory of an earlier set of the same archive, whose splits its scans keep.",
    ] = ""
    allow_overlap: Annotated[
        bool, Operational(), "Whether training and test may share patients or images."
    ] = False
    windows: Annotated[
        tuple[str, ...],
        "One window (grey) or three (channels): names, or level/width in HU as in -600/1500.",
    ] = ("lung",)
    normal_class: Annotated[
        str | None,
        'Class of the healthy, for the missed-disease rate; null: the class called "normal".',
    ] = None
    max_bad_fraction: Annotated[
        Fraction, Operational(), "Largest share of unreadable files; with more prepare stops."
    ] = 0.05
    memory_gb: Annotated[
        float | None,
        Range(0, 1e6),
        Operational(),
        "Images of a classifier's training in memory, half of it for one set, in GB; more lie in "
        "TMPDIR; null: a quarter of it.",
    ] = None
    shard_mb: Annotated[
        float, Range(0.001, 1e6), "Pixels in a shard, in MB; its file is a third to two thirds."
    ] = 512
    phantom: Annotated[PhantomConfig, "The digital chest phantom, for source phantom."] = (
        PhantomConfig()
    )

    def memory_bytes(self, default: float) -> float:
        """Return how many bytes of images classifiers may hold in memory, by default that many."""
        return default if self.memory_gb is None else self.memory_gb * 1e9

    def validate(self) -> list[ConfigIssue]:
        """Require a path, windows that exist and a training share above 0."""
        issues = self._window_issues() + self._split_issues()
        needed = SOURCES[self.source].settings
        if "path" in needed and not self.path:
            issues.append(
                ConfigIssue("path", self.path, f"a folder or URL (data.source is {self.source})")
            )
        if "labels" in needed and not self.labels:
            allowed = f"a CSV file of patient (or series) and class (data.source is {self.source})"
            issues.append(ConfigIssue("labels", self.labels, allowed))
        return issues

    @property
    def levels_and_widths(self) -> list[tuple[float, float]]:
        """Return level and width of each window, in HU."""
        return [window for window in map(parse_window, self.windows) if window]

    @property
    def test_share(self) -> float:
        """Return the share of the groups that is tested on: ``test_fraction``, or one fold."""
        return 1 / self.folds if self.folds else self.test_fraction

    def _split_issues(self) -> list[ConfigIssue]:
        issues = []
        if self.folds == 1:
            issues.append(ConfigIssue("folds", self.folds, "0 for none, or at least 2"))
        elif self.val_fraction + self.test_share >= 1:
            name = "folds" if self.folds else "test_fraction"
            allowed = f"a test share of less than {1 - self.val_fraction:g}"
            issues.append(ConfigIssue(name, getattr(self, name), allowed))
        if self.folds and self.splits_from:
            allowed = f"nothing: data.folds={self.folds} draws splits of its own"
            issues.append(ConfigIssue("splits_from", self.splits_from, allowed))
        if self.fold >= max(self.folds, 1):
            issues.append(ConfigIssue("fold", self.fold, f"less than data.folds, {self.folds}"))
        if self.patient_pattern and "patient_pattern" not in SOURCES[self.source].settings:
            allowed = f"nothing: {self.source} names its patients itself, or has none"
            issues.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            allowed = f"a regular expression ({error})"
            issues.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        else:
            if self.patient_pattern and not groups:
                allowed = "a regular expression with a group: (P[0-9]+)_"
                issues.append(ConfigIssue("patient_pattern", self.patient_pattern, allowed))
        return issues

    def _window_issues(self) -> list[ConfigIssue]:
        known = f"{', '.join(WINDOWS)} or level/width in HU, as in -600/1500"
        issues = [
            ConfigIssue(f"windows.{index}", window, known)
            for index, window in enumerate(self.windows)
            if parse_window(window) is None
        ]
        if len(self.windows) not in (1, 3):
            issues.append(ConfigIssue("windows", list(self.windows), "one window or three"))
        elif len(self.windows) > 1 and not SOURCES[self.source].is_hounsfield:
            allowed = f"one window: {self.source} holds grey images, windowed already"
            issues.append(ConfigIssue("windows", list(self.windows), allowed))
        return issues
