"""Find finished synthetic sets by what a user calls them."""

from __future__ import annotations

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.shards.manifest import MANIFEST
from gemix.io.storage import Store
from gemix.io.workspace import Workspace


def find_set(workspace: Workspace, target: str) -> str:
    """Return the directory of a set: that of a method in the work directory, or any other.

    Raises:
        DataError: if there is no finished set.
    """
    candidates = [workspace.synthetic(target)] if "/" not in target else []
    for url in (*candidates, target):
        if Store(url).exists(MANIFEST):
            return url
    raise DataError(
        f"{target}: neither a method with a finished set in {workspace.workdir}/synthetic nor the "
        "directory of one; run gemix synthesize, or correct the name"
    )


def finished_sets(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the methods of ``config.synthesis.methods`` that have a finished set.

    Raises:
        DataError: if none has.
    """
    methods = config.synthesis.methods
    found = [name for name in methods if Store(workspace.synthetic(name)).exists(MANIFEST)]
    if not found:
        raise DataError(
            f"{workspace.workdir}/synthetic: no finished set of {', '.join(methods)}; run gemix "
            "synthesize, or name the directory of a set"
        )
    return found
