"""The lines of Ray's processes on the driver's terminal: records of gemix as they are.

All others, which are Ray's, are records of the level DEBUG (``--verbose``).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import ray._private.worker

log = logging.getLogger("gemix.ray")

# as gemix.core.logs writes them
_RECORD = re.compile(r"\d\d:\d\d:\d\d [a-z][\w -]*: ")


def forward_worker_lines() -> None:
    """Take over the printing of what Ray's processes write; call before ``ray.init``.

    Ray has no public hook for it, only prefixes that can be switched off.
    """
    ray._private.worker.print_to_stdstream = _forward


def _forward(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Print a batch of lines of one process.

    Args:
        data: ``lines``, and ``actor_name``, ``task_name`` and ``pid`` of the process.
    """
    del ignore_prefix
    for line in data.get("lines", ()):
        if _RECORD.match(line):
            sys.stderr.write(f"{line}\n")
        elif line.strip():
            process = data.get("actor_name") or data.get("task_name") or "process"
            log.debug("%s %s: %s", process, data.get("pid"), line)
    sys.stderr.flush()
