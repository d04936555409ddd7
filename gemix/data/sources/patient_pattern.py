"""Patients named by the paths of files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gemix.core.errors import DataError


def patients_of(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the group of each file: ``patient-`` and the pattern's first group in its path.

    The text is written to shards as it is, so it must not be a name that has to be kept secret.
    One text is one patient in every class; where each class folder counts its patients anew, let
    the group take in the folder: ``([^/]+/case-[0-9]+)``.

    Args:
        names: paths below ``data.path``.
        pattern: a regular expression with a group, searched for in each path.

    Raises:
        DataError: if it is not found in all of them, or its first group is empty.
    """
    search = re.compile(pattern).search
    found = {name: search(name) for name in names}
    missing = [name for name, match in found.items() if not (match and match[1])]
    if missing:
        raise DataError(
            f"data.patient_pattern {pattern!r}: matches no patient in {len(missing)} of "
            f"{len(found)} files, as in {missing[0]!r}; correct the pattern, so that its first "
            "group is found in every path below data.path, or move these files away"
        )
    return {name: f"patient-{match[1]}" for name, match in found.items() if match}
