"""The pipeline with the preset ``demo``: phantom scans, small networks, minutes on a laptop."""

from __future__ import annotations

import dataclasses
import sys

from jobs.pipeline import COMMAND as PIPELINE

COMMAND = dataclasses.replace(
    PIPELINE,
    name="demo",
    summary="Run the whole path on a built-in chest phantom: no data, no GPU, no configuration.",
    reads="nothing",
    costs="8 to 15 minutes on 2 CPU cores",
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
