"""The MLflow model registry: classifiers that others load by name, without knowing gemix.

The model is code and data, never a pickle: a copy of the package, the file `pyfunc_model.py` that
MLflow runs, and the classifier's directory.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME, MODEL_CODE_PATH
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Map

import gemix
from gemix.classifier import grad_cam
from gemix.classifier.bundle import Classifier
from gemix.core.errors import TrackingConfigError
from gemix.io.storage import Store
from gemix.serving.scan_classifier import ScanClassifier
from gemix.tracking.mlflow_errors import (
    is_refusal,
    redact_credentials,
    translate_mlflow_errors,
)
from gemix.tracking.mlflow_run import Run
from gemix.tracking.registrable import check_registrable
from gemix.tracking.transport import resolve_run

ALIAS = "latest-best"
_ARTIFACT = "classifier"  # pyfunc_model.py knows the name
DATA_DIGEST = "data_digest"  # tag of a version: of the real images, all splits
MOST_PROBABLE_F2 = "val_macro_f2_of_most_probable_class"  # tag: no threshold, whatever the rule
_PACKAGES = (
    *("mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pyarrow", "pydicom"),
    *("safetensors", "scipy", "timm", "torch", "torchvision"),
)


def register(
    classifier: Classifier,
    run: Run,
    name: str,
    tags: Mapping[str, str],
    *,
    alias: str | None = ALIAS,
) -> str:
    """Make the classifier the newest version of a registered model.

    ``mlflow.pyfunc.load_model(f"models:/{name}/{version}")`` gives a model from uint8 images
    [N, C, H, W] to the probabilities that `classifier.predict` gives, and from files where the
    classifier knows the preprocessing of its training images
    (:class:`gemix.tracking.pyfunc_model.ClassifierModel`).
    Its files may be handed on: the example that MLflow stores with it shows nobody.

    Args:
        classifier: what to register.
        run: the run that the model is an output of.
        name: of the registered model, which is created if it is new.
        tags: of the new version.
        alias: that points to it from now on; None for none.

    Returns:
        The version.

    Raises:
        NotRegistrableError: for a classifier that is not finite or below chance.
        TrackingError: if the registry cannot be reached.
    """
    check_registrable(classifier)
    client = run.client
    with translate_mlflow_errors(run.tracking_uri), tempfile.TemporaryDirectory() as folder:
        run_id = resolve_run(client, run.run_id)
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(
            experiment, name="classifier", source_run_id=run_id, model_type="classifier"
        )
        description = Model(run_id=run_id, model_id=logged.model_id)
        _save(classifier, Path(folder), description)
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        _ensure_registered(client, name)
        version = client.create_model_version(
            name,
            # not models:/<id>, which MLflow would look up in its global store
            logged.artifact_location,
            run_id=run_id,
            model_id=logged.model_id,
            tags=dict(tags),
        )
        if alias is not None:
            client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def classifier_folder(model: str) -> str:
    """Return the classifier's directory in the files of a registered model, a path or URL."""
    return f"{model}/artifacts/{_ARTIFACT}"


def load_registered(uri: str) -> Classifier:
    """Return the classifier of a registered model, as this version of gemix reads it.

    Args:
        uri: ``models:/<name>@<alias>`` or ``models:/<name>/<version>``, in the registry of
            ``MLFLOW_TRACKING_URI``.

    Raises:
        TrackingError, TrackingConfigError: if the registry is away or does not have it.
        CheckpointError: if it is damaged, or was not registered by gemix.
    """
    registry = mlflow.get_tracking_uri()
    with tempfile.TemporaryDirectory() as folder:
        with translate_mlflow_errors(registry):
            try:
                path = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
            except MlflowException as error:
                if not is_refusal(error, registry):
                    raise
                raise TrackingConfigError(
                    f"{uri}: {redact_credentials(str(error), registry)}; name a model that the "
                    f"registry {redact_credentials(registry)} has, and its version or alias"
                ) from None
        return Classifier.load(Store(classifier_folder(path)))


def _save(classifier: Classifier, folder: Path, description: Model) -> None:
    """Write the model into ``folder/model``."""
    classifier.save(Store(folder / _ARTIFACT))
    # MLflow asks for type hints, which cannot describe arrays; the signature does
    with warnings.catch_warnings(record=True):
        mlflow.pyfunc.save_model(
            path=str(folder / "model"),
            mlflow_model=description,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={_ARTIFACT: str(folder / _ARTIFACT)},
            code_paths=[str(Path(gemix.__file__).parent)],
            signature=_signature(classifier),
            input_example=_example(classifier),
            pip_requirements=[_pin(package) for package in _packages()],
            metadata={
                "classes": list(classifier.classes),
                "method": classifier.method,
                "preprocessing": classifier.preprocessing,
                "decision": classifier.decision.to_json(),
                "accepts": ScanClassifier(classifier).accepts,
            },
        )
    _leave_out_paths(folder / "model" / MLMODEL_FILE_NAME)


def _leave_out_paths(file: Path) -> None:
    """Leave out of MLflow's description where the model's files came from on this machine.

    MLflow loads them from the model's directory; the paths of an installation and of a work
    directory may name people.
    """
    description = Model.load(str(file))
    flavor = description.flavors[mlflow.pyfunc.FLAVOR_NAME]
    flavor[MODEL_CODE_PATH] = Path(flavor[MODEL_CODE_PATH]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    description.save(str(file))


def _example(classifier: Classifier) -> np.ndarray:
    """Return images that show nobody, uint8 [2, C, R, R]: ramps of grey, to the right and left."""
    side = classifier.spec.resolution
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    ramps = np.stack([ramp, ramp[::-1]])[:, None, None]
    return ramps.repeat(classifier.spec.channels, axis=1).repeat(side, axis=2)


def _signature(classifier: Classifier) -> ModelSignature:
    """Return the signature: of arrays alone, or of arrays and files; `explain` is a parameter.

    MLflow's signatures are of tensors or of columns. A tensor of objects is the only one that lets
    arrays through as well as text, be it in JSON, in a column or in an array.
    """
    params = ParamSchema([ParamSpec("explain", DataType.boolean, default=False)])
    if classifier.preprocessing is None:
        spec = classifier.spec
        shape = (-1, spec.channels, spec.resolution, spec.resolution)
        inputs = TensorSpec(np.dtype(np.uint8), shape)
        outputs = TensorSpec(np.dtype(np.float32), (-1, len(classifier.classes)))
        return ModelSignature(Schema([inputs]), Schema([outputs]), params)
    inputs = TensorSpec(np.dtype(object), (-1,), name="image")
    outputs = [
        ColSpec(DataType.string, "class"),
        ColSpec(Map(DataType.double), "probabilities"),
        ColSpec(DataType.string, "grad_cam", required=False),
    ]
    return ModelSignature(Schema([inputs]), Schema(outputs), params)


def _packages() -> tuple[str, ...]:
    """Return what the model imports: Captum where gemix has its extra `explain`."""
    return (*_PACKAGES, "captum") if grad_cam.is_installed() else _PACKAGES


def _pin(package: str) -> str:
    # a local version ("2.11.0+cpu") names a build that an index may not have
    return f"{package}=={importlib.metadata.version(package).split('+')[0]}"


def _ensure_registered(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
