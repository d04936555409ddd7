"""Where a candidate comes from: the evaluation of a work directory, or the winner of its sweep."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from gemix.classifier.bundle import Classifier
from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.io.records import read_record, write_record
from gemix.io.results import (
    EVALUATION,
    REAL,
    SWEEP,
    Evaluation,
    Overlap,
    RegisteredModel,
    best_on_validation,
    read_classifiers,
    read_evaluation,
)
from gemix.io.storage import Store
from gemix.io.sweep_record import CONFIRMED, PUBLISHED, REFERENCE, Confirmation, read_sweep
from gemix.io.workspace import Workspace
from gemix.tracking import champion
from gemix.tracking.mlflow_run import Run
from gemix.tracking.model_registry import DATA_DIGEST, MOST_PROBABLE_F2, register

REGISTERED = "registered.json"  # in the sweep's directory


class Origin(Protocol):
    """The step that trained a candidate, and the classifier of real images beside it."""

    workspace: Workspace
    record: str
    """File of the work directory that says what was trained and tested."""

    @property
    def overlap(self) -> Overlap | None:
        """The overlap of training and test images; None if it is not on record."""

    def version(self, model: champion.RegisteredModel, run: Run) -> str:
        """Return the version of its classifier in the registry; register it if it is not there.

        Raises:
            DataError: if there is none.
        """

    def synthetic_set(self, method: str) -> str:
        """Return the directory of a method's synthetic set."""

    def audit_target(self, method: str) -> str:
        """Return what ``gemix audit`` takes to audit this set."""

    def real_only(self) -> tuple[str, Classifier]:
        """Return name and classifier of the best of real images alone, by validation.

        Raises:
            DataError: if there is none.
        """


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Classifiers of ``gemix train-classifier``, of which ``gemix evaluate`` registers the best.

    Raises:
        DataError: if the evaluation is missing or damaged, or if the test images are others by now.
    """

    workspace: Workspace
    evaluation: Evaluation = dataclasses.field(init=False)
    record = f"evaluation/{EVALUATION}"

    def __post_init__(self) -> None:
        evaluation = read_evaluation(Store(self.workspace.evaluation))
        object.__setattr__(self, "evaluation", evaluation)
        _check_test(self.workspace, self.record, evaluation.test.digest, "evaluate")

    @property
    def overlap(self) -> Overlap | None:
        """The overlap of training and test images that ``gemix evaluate`` found."""
        return self.evaluation.overlap

    def version(self, model: champion.RegisteredModel, run: Run) -> str:
        """Return the version that ``gemix evaluate`` has registered."""
        del run
        registered, name = self.evaluation.registered_model, model.name
        if registered is None:
            raise DataError(
                f"{self.workspace.evaluation}: gemix evaluate has registered no classifier, as its "
                "log says why; run it again with --overwrite, or name a version with --version"
            )
        if registered.name != name:
            raise DataError(
                f"{self.workspace.evaluation}: registered as {registered.name!r}, and "
                f"tracking.registered_model is {name!r}; set it to {registered.name!r}, or name a "
                f"version of {name!r} with --version"
            )
        return registered.version

    def synthetic_set(self, method: str) -> str:
        """Return the set that ``gemix synthesize`` writes."""
        return self.workspace.synthetic(method)

    def audit_target(self, method: str) -> str:
        """Return the method's name."""
        return method

    def real_only(self) -> tuple[str, Classifier]:
        """Return the best of ``gemix train-classifier``."""
        listing = read_classifiers(Store(self.workspace.classifiers))
        rows = [row for row in listing if row.method == REAL]
        if not rows:
            raise DataError(
                f"{self.workspace.classifiers}: no classifier of real images alone, and there is "
                "no champion to compare with; run gemix train-classifier --overwrite, then gemix "
                "evaluate --overwrite"
            )
        name = best_on_validation(rows).name
        return name, Classifier.load(Store(f"{self.workspace.classifiers}/{name}"))


@dataclasses.dataclass(frozen=True)
class Swept:
    """The winner of ``gemix sweep``, trained on fresh seeds and tested once.

    Raises:
        DataError: if no sweep has ended with a winner of its own, or if the test images are others
            by now.
    """

    workspace: Workspace
    confirmed: Confirmation = dataclasses.field(init=False)
    record = f"sweep/{SWEEP}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "confirmed", _confirmed(self.workspace))
        _check_test(self.workspace, self.record, self.confirmed.test.digest, "sweep")

    @property
    def overlap(self) -> Overlap | None:
        """The overlap of training and test images that ``gemix sweep`` found."""
        return self.confirmed.overlap

    def version(self, model: champion.RegisteredModel, run: Run) -> str:
        """Return the version of the winner, which is registered once; `latest-best` stays."""
        store, classifier = Store(self.workspace.sweep), self._classifier(self._winner)
        if store.exists(REGISTERED):
            found = read_record(store, REGISTERED, _Registered, "delete it")
            is_same = (found.model.name, found.checksum) == (model.name, classifier.checksum)
            if is_same and model.version(found.model.version):
                return found.model.version
        tags = {
            "method": classifier.method,
            "seed": str(classifier.config.seed),
            "gemix.sweep": self.confirmed.winner.name,
            MOST_PROBABLE_F2: str(classifier.validation["val_macro_f2"]),
            DATA_DIGEST: Manifest.load(Store(self.workspace.data)).digest,
        }
        version = register(classifier, run, model.name, tags, alias=None)
        row = _Registered(
            model=RegisteredModel(name=model.name, version=version), checksum=classifier.checksum
        )
        write_record(store, REGISTERED, row)
        return version

    def synthetic_set(self, method: str) -> str:
        """Return the set that the winner was trained on."""
        del method
        return self.workspace.sweep_winner

    def audit_target(self, method: str) -> str:
        """Return its directory."""
        return self.synthetic_set(method)

    def real_only(self) -> tuple[str, Classifier]:
        """Return the best of the sweep's own, on fresh seeds too."""
        name = str(self.confirmed.real_only)
        return name, self._classifier(name)

    @property
    def _winner(self) -> str:
        return str(self.confirmed.winner.classifier)

    def _classifier(self, name: str) -> Classifier:
        return Classifier.load(Store(self.workspace.sweep) / f"{CONFIRMED}/{name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Registered:
    """``registered.json``: the version of the winner, and the checksum of its weights."""

    model: RegisteredModel
    checksum: str


def _confirmed(workspace: Workspace) -> Confirmation:
    results = read_sweep(Store(workspace.sweep))
    if results is None:
        raise DataError(
            f"{workspace.sweep}: no sweep has ended; run gemix sweep to its end, or leave --sweep "
            "out to promote what gemix evaluate has registered"
        )
    confirmed = results.confirmed
    if confirmed is None:
        raise DataError(
            f"{workspace.sweep}: the sweep has no winner, since its best trials were neither "
            "trained on fresh seeds nor tested; run gemix sweep again with a sweep.fresh_seeds "
            "above 0"
        )
    winner = confirmed.winner
    if winner.name in (REFERENCE, PUBLISHED):
        raise DataError(
            f"{workspace.sweep}: the sweep has found nothing better than its default, "
            f"{winner.name!r}, so it has no candidate; run gemix promote without --sweep, which "
            "takes what gemix evaluate has registered"
        )
    if winner.classifier is None or confirmed.real_only is None:
        raise DataError(
            f"{workspace.sweep}: an earlier version of gemix has confirmed the winner and kept "
            "none of its images, which the gate asks for; run gemix sweep again with a higher "
            "sweep.trials"
        )
    return confirmed


def _check_test(workspace: Workspace, record: str, tested: Any, command: str) -> None:
    digest = Manifest.load(Store(workspace.data)).content_digest("test")
    if tested != digest:
        raise DataError(
            f"{workspace.workdir}/{record}: of test images of the digest {str(tested)[:16]}, but "
            f"{workspace.data} has {digest[:16]}; run gemix {command} --overwrite"
        )
