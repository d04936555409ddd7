"""The ledger of promotions: one file a decision, written whole, never written again."""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from typing import Self

from gemix.io.records import read_record, to_json
from gemix.io.results import Difference
from gemix.io.storage import Store

PROMOTE, ROLLBACK = "promote", "rollback"
_FILE = re.compile(r"(\d{6})\.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actor:
    """Who decided: the user of the operating system and the host, and the user of MLflow if any."""

    user: str
    host: str
    mlflow_user: str | None = None

    @classmethod
    def of_process(cls) -> Self:
        """Return who runs this process."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a container's user without a name
            user = str(os.getuid())
        mlflow_user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        return cls(user=user, host=socket.gethostname(), mlflow_user=mlflow_user)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedVersion:
    """A registered version, or a classifier of the work directory where `version` is None.

    Attributes:
        name: of the classifier, in words.
        checksum: of its weights; None where they were not read.
        decision: how it gives an image its class, in words; None likewise.
        data_digest: of the real images, all splits, that it belongs to; None if not on record.
    """

    version: str | None
    name: str
    checksum: str | None = None
    decision: str | None = None
    data_digest: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Finding of one rule of the gate."""

    rule: str
    passed: bool
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A rate on the test images, with 95% intervals over patients.

    Attributes:
        candidate, reference: the rates.
        candidate_interval, reference_interval: (low, high) of each.
        difference: candidate less reference, paired; None where they are the same classifier.
    """

    rate: str
    candidate: float
    candidate_interval: tuple[float, float]
    reference: float
    reference_interval: tuple[float, float]
    difference: Difference | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestImages:
    """The test images of a decision.

    Attributes:
        groups: patients, or groups that stand for them.
        openings: how often this test set has been predicted by now.
    """

    __test__ = False  # for pytest

    digest: str
    images: int
    groups: int
    openings: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """A file of the ledger.

    Attributes:
        id: unique; the tag ``gemix.decision.<id>`` of the version is ``done`` once aliases are
            moved.
        action: ``promote`` or ``rollback``.
        time: UTC, ISO 8601.
        model: name of the registered model.
        candidate: the version that the decision is about; of a rollback, the one that is champion
            again.
        champion: the champion before; None where there was none.
        reference: what the candidate was compared with; None for a rollback.
        promoted: whether the candidate is champion after it.
        findings: by each rule.
        figures: of the candidate and the reference.
        margin: ``promotion.fnr_margin``.
        sha256: of the files that the decision rests on, by name.
        remarks: what a reader should know.
        gemix: its version.
        commit: of its checkout.
    """

    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    action: str
    time: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )
    who: Actor = dataclasses.field(default_factory=Actor.of_process)
    model: str
    candidate: JudgedVersion
    champion: JudgedVersion | None
    reference: JudgedVersion | None = None
    promoted: bool
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()
    margin: float | None = None
    test: TestImages | None = None
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    gemix: str
    commit: str | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason against a candidate that was refused; all that speaks for a promoted one."""
        return tuple(one.text for one in self.findings if one.passed == self.promoted)

    @property
    def verdict(self) -> str:
        """The decision in a sentence."""
        version = f"{self.model} version {self.candidate.version}"
        if self.action == ROLLBACK:
            return f"{version} is the champion again"
        return f"{version} is the champion" if self.promoted else f"{version} is a challenger"

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return f"{json.dumps(to_json(self), indent=1, allow_nan=False)}\n".encode()


class Ledger:
    """The decisions of one work directory.

    Args:
        store: their directory.
    """

    def __init__(self, store: Store):
        self.store = store

    def append(self, decision: Decision) -> str:
        """Write a decision as the next file; none that is there is ever replaced.

        Returns:
            The file's name.
        """
        number = max(self._numbers(), default=0)
        while True:
            number += 1
            name = f"{number:06d}.json"
            if self.store.create(name, decision.to_bytes()):
                return name

    def last(self, model: str) -> Decision | None:
        """Return the newest decision on a registered model.

        Raises:
            DataError: if a file is damaged.
        """
        for number in sorted(self._numbers(), reverse=True):
            remedy = "restore it from the artifacts of the MLflow run promote, or delete it"
            found = read_record(self.store, f"{number:06d}.json", Decision, remedy)
            if found.model == model:
                return found
        return None

    def _numbers(self) -> list[int]:
        return [int(match[1]) for name in self.store.list() if (match := _FILE.fullmatch(name))]
