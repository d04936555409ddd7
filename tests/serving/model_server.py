"""Serve a saved MLflow model over HTTP from a process that has neither gemix nor Ray.

``python model_server.py MODEL PORT`` prints a line of JSON on how the model was loaded, and serves.
"""

from __future__ import annotations

import importlib.abc
import json
import pickle
import sys

BLOCKED = ("boto3", "botocore", "optuna", "ray", "jobs", "tune")


class Blocker(importlib.abc.MetaPathFinder):
    """Refuses to import what a machine that only serves does not have."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in BLOCKED:
            raise ImportError(f"{fullname} is blocked")


def refuse(*args, **kwargs):
    raise AssertionError("a pickle is read")


def main() -> None:
    path, port = sys.argv[1:]
    # an editable installation of gemix counts as none
    sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
    sys.meta_path.insert(0, Blocker())
    import mlflow.pyfunc
    import timm  # noqa: F401  (before pickle is replaced)
    import torch
    import uvicorn
    from mlflow.pyfunc import scoring_server

    with_gemix = [name for name in sys.modules if name.partition(".")[0] == "gemix"]
    pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse
    model = mlflow.pyfunc.load_model(path)
    gemix = {name: m.__file__ for name, m in sys.modules.items() if name.startswith("gemix")}
    print(json.dumps({"before": with_gemix, "gemix": gemix}), flush=True)
    uvicorn.run(scoring_server.init(model), host="127.0.0.1", port=int(port), log_level="error")


if __name__ == "__main__":
    main()
