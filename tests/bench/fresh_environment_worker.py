"""Predict with a registered model where neither gemix nor Ray is installed.

``python -I fresh_environment_worker.py MODEL FOLDER`` reads ``images.npy`` and the PNG files of the
folder, writes ``found.npz``, and prints a line of JSON on the environment.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import sys
from pathlib import Path

ABSENT = ("gemix", "jobs", "tune", "ray", "optuna")


def main() -> None:
    """Write the probabilities of both forms of the images."""
    model_folder, folder = map(Path, sys.argv[1:])
    there = [name for name in ABSENT if importlib.util.find_spec(name) is not None]
    assert not there, f"{there} can be imported, so this environment shows nothing"
    import mlflow.pyfunc
    import numpy as np

    model = mlflow.pyfunc.load_model(str(model_folder))
    files = np.array([p.read_bytes() for p in sorted(folder.glob("*.png"))], dtype=object)
    answers = model.predict(files)
    np.savez(
        folder / "found.npz",
        arrays=model.predict(np.load(folder / "images.npy")),
        files=np.array([list(row.values()) for row in answers["probabilities"]]),
    )
    gemix = Path(sys.modules["gemix"].__file__)
    assert gemix.is_relative_to(model_folder), f"gemix came from {gemix}"
    assert "ray" not in sys.modules
    packages = len(list(importlib.metadata.distributions()))
    print(json.dumps({"python": platform.python_version(), "packages": packages}))


if __name__ == "__main__":
    main()
