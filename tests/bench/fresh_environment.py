"""Load the registered classifier in a new environment that has its requirements and nothing else.

    python -m tests.bench.fresh_environment --workdir runs/demo

Makes a virtual environment, installs the model's own ``requirements.txt`` into it with pip (some
gigabytes, minutes), and asks the model there for the probabilities of prepared images, as arrays
and as PNG files. Ends with an error if gemix or Ray can be imported there, or if a probability
differs by more than 1e-5 from what gemix predicts here. An environment that is there already
(`--environment`) is used as it is, so that a second run takes seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow.artifacts
import numpy as np

from gemix.config import load
from gemix.core.png import encode_png
from gemix.data.shards.reading import read_images
from gemix.io.workspace import Workspace
from gemix.serving.scan_classifier import ScanClassifier
from gemix.steps.runtime.outputs import CONFIG
from gemix.tracking.client import load_mlflow, tracking_uri
from gemix.tracking.model_registry import ALIAS, load_registered

WORKER = Path(__file__).with_name("fresh_environment_worker.py")
TOLERANCE = 1e-5


def main() -> None:
    """Print what the new environment has, and how far its probabilities are from those here."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fresh_environment")
    parser.add_argument("--workdir", default="runs/demo", help="a local one, after gemix evaluate")
    parser.add_argument("--environment", type=Path, help="default: a temporary directory")
    parser.add_argument("--images", type=int, default=32)
    options = parser.parse_args()
    workspace = Workspace.at(options.workdir)
    config = load(f"{workspace.workdir}/{CONFIG}")
    load_mlflow().set_tracking_uri(tracking_uri(workspace.workdir))
    uri = f"models:/{config.tracking.registered_model}@{ALIAS}"
    images = read_images([workspace.data], "val").images[: options.images]
    files = [encode_png(image.transpose(1, 2, 0)) for image in images]
    here = ScanClassifier(load_registered(uri))
    expected = {
        "arrays": here.predict(images),
        "files": here.predict(here.images(np.array(files, dtype=object))),
    }
    with tempfile.TemporaryDirectory() as folder:
        model = mlflow.artifacts.download_artifacts(uri, dst_path=f"{folder}/model")
        python = _environment(options.environment or Path(folder) / "venv", Path(model))
        found, facts = _predict_there(python, Path(folder), Path(model), images, files)
    print(f"{uri}: Python {facts['python']}, {facts['packages']} packages, no gemix, no Ray")
    for name, probabilities in expected.items():
        difference = float(np.abs(found[name] - probabilities).max())
        print(f"{len(probabilities)} images as {name}: largest difference {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"the probabilities of {name} differ by more than {TOLERANCE:g}")


def _environment(folder: Path, model: Path) -> Path:
    """Return the interpreter of an environment with the model's requirements."""
    python, requirements = folder / "bin" / "python", model / "requirements.txt"
    if not python.exists():
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", requirements], check=True)
        print(
            f"installed the {len(requirements.read_text().splitlines())} requirements in "
            f"{time.monotonic() - began:.0f} s"
        )
    return python


def _predict_there(
    python: Path, folder: Path, model: Path, images: np.ndarray, files: list[bytes]
) -> tuple[dict[str, np.ndarray], dict]:
    """Return the probabilities that the model gives in the environment, and what is there."""
    np.save(folder / "images.npy", images)
    for index, file in enumerate(files):
        (folder / f"{index:04d}.png").write_bytes(file)
    # -I: neither PYTHONPATH nor the working directory, which has gemix, counts
    done = subprocess.run(
        [python, "-I", WORKER, model, folder],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit("the model could not be used in the new environment; see above")
    with np.load(folder / "found.npz") as found:
        return dict(found), json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
