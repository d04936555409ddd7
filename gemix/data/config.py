"""Settings of the data: where the scans are, how they become images, how they are split."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.data.windows import WINDOWS, parse_window
from gemix.schema import Config, Fraction, Positive, PowerOfTwo, Problem, Range

GREY_SOURCES = ("folder", "covidx", "medmnist")
"""Those of 8-bit images, which no window applies to."""


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

    `labels` is the CSV file that gives DICOM patients or series their class. Of each patient's
    slices every `slice_step`-th is used. `windows` turn Hounsfield units into grey: names
    (:data:`gemix.data.windows.WINDOWS`) or ``level/width`` in HU; one makes grey images, three make
    the three channels of an image. Images of 8 bits are windowed already. `normal_class` names the
    class of the healthy, for the missed-disease rate; null means the class called "normal" in any
    spelling, if there is one.
    """

    source: Literal["folder", "covidx", "dicom", "nifti", "medmnist", "phantom"] = "phantom"
    path: str = ""
    labels: str = ""
    slice_step: Positive = 1
    resolution: Annotated[int, PowerOfTwo(16, 1024)] = 128
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    split_seed: Annotated[int, Range(low=0)] = 0
    windows: tuple[str, ...] = ("lung",)
    normal_class: str | None = None
    max_bad_fraction: Fraction = 0.05
    shard_rows: Positive = 8192
    phantom: PhantomConfig = PhantomConfig()

    def conflicts(self) -> list[Problem]:
        """A path where one is needed; windows that exist; a training share that is left over."""
        problems = self._window_problems()
        if self.source != "phantom" and not self.path:
            problems.append(
                Problem("path", self.path, f"a folder or URL (data.source is {self.source})")
            )
        if self.source == "dicom" and not self.labels:
            allowed = "a CSV file of patient (or series) and class (data.source is dicom)"
            problems.append(Problem("labels", self.labels, allowed))
        if self.val_fraction + self.test_fraction >= 1:
            problems.append(
                Problem("test_fraction", self.test_fraction, f"less than {1 - self.val_fraction:g}")
            )
        return problems

    @property
    def levels_and_widths(self) -> list[tuple[float, float]]:
        """Level and width of each window, in HU."""
        return [window for window in map(parse_window, self.windows) if window]

    def _window_problems(self) -> list[Problem]:
        known = f"{', '.join(WINDOWS)} or level/width in HU, as in -600/1500"
        problems = [
            Problem(f"windows.{index}", window, known)
            for index, window in enumerate(self.windows)
            if parse_window(window) is None
        ]
        if len(self.windows) not in (1, 3):
            problems.append(Problem("windows", list(self.windows), "one window or three"))
        elif len(self.windows) > 1 and self.source in GREY_SOURCES:
            allowed = f"one window: {self.source} holds grey images, windowed already"
            problems.append(Problem("windows", list(self.windows), allowed))
        return problems
