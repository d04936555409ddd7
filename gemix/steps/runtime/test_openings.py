"""The test set in results, and how often it was predicted: each look makes the next less honest."""

from __future__ import annotations

import datetime

from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet
from gemix.evaluation.classification.bootstrap import groups_by_class
from gemix.io.results import EvaluatedSet
from gemix.io.storage import Store
from gemix.io.workspace import Workspace

OPENINGS = "test_openings.json"


def count_opening(workspace: Workspace, step: str, test_digest: str) -> int:
    """Note that a step is about to predict a test set; return how often that has happened.

    This one is counted, and stays counted if the step is stopped.

    The list stays when results are overwritten.

    Args:
        test_digest: of the content of the test split.
    """
    store = Store(workspace.workdir)
    try:
        known = store.read_json(OPENINGS) if store.exists(OPENINGS) else []
    except DataError:
        known = []  # damaged: better a short list than no result
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    store.write_json(OPENINGS, [*known, {"time": now, "step": step, "test": test_digest}])
    return 1 + sum(row["test"] == test_digest for row in known)


def describe_test(test: ImageSet, normal: int | None) -> EvaluatedSet:
    """Return what results record of the test set.

    Args:
        normal: index of the healthy class; None if there is none.
    """
    return EvaluatedSet(
        images=len(test),
        groups=len(set(test.groups)),
        groups_by_class=groups_by_class(test.labels, test.groups, test.classes),
        classes=test.classes,
        normal_class=None if normal is None else test.classes[normal],
        digest=test.digest,
    )
