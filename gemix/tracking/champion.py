"""Versions of a registered model, and the aliases that say which of them is for use.

``champion`` is the version to use, ``previous-champion`` the one before it, ``challenger`` the last
one that was refused. MLflow's stages are deprecated and not used. Setting an alias that exists
moves it in one request, so there is a champion at every moment.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from gemix.classifier.bundle import Classifier
from gemix.core.errors import CheckpointError, DataError, TrackingError
from gemix.io.storage import Store
from gemix.tracking.client import open_client
from gemix.tracking.mlflow_errors import is_refusal, redact_credentials, translate_mlflow_errors
from gemix.tracking.model_registry import classifier_folder

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous-champion"
_RETRY_SECONDS = (1.0, 4.0)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a registered model.

    Attributes:
        source: where its files are.
    """

    number: str
    source: str
    tags: Mapping[str, str]


class _Refused(DataError):
    """A request that the registry has looked at and will never accept.

    Attributes:
        reason: that the registry gives.
    """

    def __init__(self, model: str, reason: str):
        self.reason = reason
        super().__init__(
            f"{model}: the registry refuses a request: {reason}; see which versions there are in "
            "MLflow, and run the command again"
        )


class RegisteredModel:
    """A registered model; requests that fail for passing trouble are repeated.

    Args:
        tracking_uri: the store.
        name: of the registered model.

    Raises:
        TrackingError: by every method, if the registry stays away.
        DataError: by every method, if it refuses the request, as for a version that is deleted.
        TrackingConfigError: if it cannot be used as it is configured.
    """

    def __init__(self, tracking_uri: str, name: str):
        self.uri, self.name = tracking_uri, name
        self._client = open_client(tracking_uri)

    def aliases(self) -> dict[str, str]:
        """Return the version that each alias names.

        Raises:
            DataError: if there is no model of this name.
        """
        try:
            found = self._ask(lambda: self._client.get_registered_model(self.name))
        except _Refused:
            raise DataError(
                f"MLflow store {redact_credentials(self.uri)}: no registered model {self.name!r}; "
                "run gemix evaluate, or correct tracking.registered_model"
            ) from None
        return {alias: str(number) for alias, number in found.aliases.items()}

    def version(self, number: str) -> Version | None:
        """Return a version; None if there is none of this number, or it is deleted."""
        try:
            found: ModelVersion = self._ask(
                lambda: self._client.get_model_version(self.name, number)
            )
        except _Refused:
            return None
        return Version(number=str(found.version), source=found.source, tags=dict(found.tags))

    def load(self, version: Version) -> Classifier:
        """Read the classifier of a version.

        Raises:
            CheckpointError: if its files are gone, damaged, or not those of a classifier.
        """
        where = f"{self.name} version {version.number}"
        remedy = (
            "restore its files, or take its aliases away (gemix promote --rollback, or "
            "MlflowClient.delete_registered_model_alias)"
        )
        source = classifier_folder(version.source)
        with tempfile.TemporaryDirectory() as folder:

            def download() -> str | None:
                # what is not there looks like an outage to a download
                if not mlflow.artifacts.list_artifacts(source, tracking_uri=self.uri):
                    return None
                return mlflow.artifacts.download_artifacts(
                    source, dst_path=folder, tracking_uri=self.uri
                )

            path = self._ask(download)
            if path is None:
                raise CheckpointError(f"{where}: there are no files in {source}; {remedy}")
            try:
                return Classifier.load(Store(path))
            except CheckpointError as error:
                raise CheckpointError(f"{where} in the registry: {error}; {remedy}") from None

    def give(self, alias: str, number: str) -> None:
        """Let an alias name a version, whatever it has named.

        Raises:
            DataError: if there is no such version.
        """
        try:
            self._ask(lambda: self._client.set_registered_model_alias(self.name, alias, number))
        except _Refused as error:
            raise DataError(
                f"{self.name} version {number} cannot be the {alias}: {error.reason}; see which "
                "versions there are in MLflow"
            ) from None

    def take(self, alias: str) -> None:
        """Remove an alias, if it is there."""
        self._ask(lambda: self._client.delete_registered_model_alias(self.name, alias))

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._ask(
                lambda k=key, v=value: self._client.set_model_version_tag(self.name, number, k, v)
            )

    def attach(self, version: Version, files: Mapping[str, bytes], description: str) -> None:
        """Add files to those of the version, and set its description."""
        files_of = get_artifact_repository(version.source, tracking_uri=self.uri)
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.write_bytes(data)
                self._ask(lambda p=path: files_of.log_artifact(str(p)))
        self._ask(lambda: self._client.update_model_version(self.name, version.number, description))

    def _ask(self, request: Callable[[], T]) -> T:
        """Return the answer to an idempotent request; repeat it while the registry is away.

        Raises:
            _Refused: a DataError, for a method that expects it to catch.
        """

        def ask() -> T:
            try:
                return request()
            except MlflowException as error:
                if is_refusal(error, self.uri):
                    reason = redact_credentials(str(error), self.uri).splitlines()[0]
                    raise _Refused(self.name, reason) from None
                raise

        for wait in (*_RETRY_SECONDS, None):
            try:
                with translate_mlflow_errors(self.uri):
                    return ask()
            except TrackingError:
                if wait is None:
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")
