"""The classifier as MLflow's Python model; MLflow copies this file into the model and runs it."""

from __future__ import annotations

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from gemix.classifier.bundle import Classifier
from gemix.io.storage import Store


class ClassifierModel(PythonModel):
    """Map uint8 images [N, C, H, W] to class probabilities, float32 [N, K]."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the classifier's directory, an artifact of the model."""
        self.classifier = Classifier.load(Store(context.artifacts["classifier"]))

    def predict(self, context, model_input, params=None) -> np.ndarray:
        """Return the class probabilities of a batch."""
        return self.classifier.predict(np.asarray(model_input))


set_model(ClassifierModel())
