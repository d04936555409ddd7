"""Settings of the data: where the scans are, how they become images, how they are split."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from gemix.schema import Config, Fraction, Positive, PowerOfTwo, Problem, Range


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

    `window_level` and `window_width` (HU) turn Hounsfield units into grey; sources of 8-bit
    images ignore them. `normal_class` names the class of the healthy, for the missed-disease
    rate; null means the class called "normal" in any spelling, if there is one.
    """

    source: Literal["folder", "covidx", "phantom"] = "phantom"
    path: str = ""
    resolution: Annotated[int, PowerOfTwo(16, 1024)] = 128
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    split_seed: Annotated[int, Range(low=0)] = 0
    window_level: float = -500.0
    window_width: Annotated[float, Range(low=1)] = 1400.0
    normal_class: str | None = None
    max_bad_fraction: Fraction = 0.05
    shard_rows: Positive = 8192
    phantom: PhantomConfig = PhantomConfig()

    def conflicts(self) -> list[Problem]:
        """A path where one is needed; a training share that is left over."""
        problems = []
        if self.source != "phantom" and not self.path:
            problems.append(
                Problem("path", self.path, f"a folder or URL (data.source is {self.source})")
            )
        if self.val_fraction + self.test_fraction >= 1:
            problems.append(
                Problem("test_fraction", self.test_fraction, f"less than {1 - self.val_fraction:g}")
            )
        return problems
