"""The classifier as MLflow's Python model; MLflow copies this file into the model and runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from gemix.classifier.bundle import Classifier
from gemix.core.errors import DataError, GemixError
from gemix.io.storage import Store
from gemix.serving.scan_classifier import ScanClassifier


class ClassifierModel(PythonModel):
    """Map images to class probabilities.

    Takes, as `image` of the signature:

    - arrays: whole numbers 0 to 255 [N, C, R, R] of images that ``gemix prepare`` made. Gives
      float32 [N, K].
    - files, one an element of a 1-D array or of a column `image`: base64 text (so through HTTP),
      bytes or, within this process alone, :class:`pathlib.Path`; the latter two in an array of
      dtype object. They are preprocessed as the training images were; ``metadata["accepts"]`` says
      which kinds of files that is possible for. Gives a table with a row a file: `class`, by the
      classifier's rule of decision, and `probabilities`, by class name. Text never names a file.

    A classifier without the preprocessing of its training images takes uint8 arrays alone.

    With the parameter `explain` both give a table, with a third column `grad_cam`: the image under
    its Grad-CAM map for the `class` of its row, a PNG file as base64 text.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Read the classifier's directory, an artifact of the model, and build the network."""
        classifier = Classifier.load(Store(context.artifacts["classifier"]))
        self.scan_classifier = ScanClassifier(classifier)
        classifier.network.eval()  # built now: a server that cannot answer should not start

    def predict(self, context, model_input, params=None) -> np.ndarray | pd.DataFrame:
        """Return the answers to a batch; an error names the image that it is about.

        Args:
            params: of the signature: `explain`, a boolean, false unless it is asked for.
        """
        given = model_input["image"] if isinstance(model_input, dict) else model_input
        values, model = _flat(np.asarray(given)), self.scan_classifier
        explain = bool(params and params.get("explain"))
        try:
            images = model.images(values)
            probabilities = model.predict(images)
            if values.ndim > 1 and not explain:
                return probabilities
            answers = model.describe(probabilities)
            return pd.DataFrame(model.explain(images, answers) if explain else answers)
        except GemixError as error:
            code = INVALID_PARAMETER_VALUE if isinstance(error, DataError) else INTERNAL_ERROR
            raise PredictionError(str(error), code) from None


def _flat(values: np.ndarray) -> np.ndarray:
    """Return files as they were given; of JSON `instances` MLflow makes an array of each."""
    if values.ndim != 1 or values.dtype != object:
        return values
    return np.fromiter((v[()] if isinstance(v, np.ndarray) else v for v in values), object)


class PredictionError(MlflowException):
    """An answer to a bad request; the text is fixed, since MLflow would add the images to it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "message" or "message" not in vars(self):
            super().__setattr__(name, value)


set_model(ClassifierModel())
