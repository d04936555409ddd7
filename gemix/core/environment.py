"""Machine, versions and commit of this process: what a result is recorded with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import gemix

_PACKAGES = {"torch": "PyTorch", "timm": "timm", "ray": "Ray", "mlflow": "MLflow"}

SHARE_FOR_IMAGES = 0.25  # of a device's or machine's memory; the rest is for the training


def machine() -> dict[str, str]:
    """Return platform, processors and GPUs of this machine."""
    import torch  # takes seconds to import

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    on_linux = hasattr(os, "sched_getaffinity")
    return {
        "Platform": f"{platform.system()} {platform.machine()}",
        "CPU cores": str(len(os.sched_getaffinity(0)) if on_linux else os.cpu_count()),
        "GPU": ", ".join(gpus) if gpus else "none",
    }


def cpu_name() -> str:
    """Return the name of the processor's model, or its architecture where the system hides it."""
    with contextlib.suppress(OSError):  # only Linux has the file
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of gemix, Python and the packages that results depend on."""
    found = {"gemix": gemix.__version__, "Python": platform.python_version()}
    return found | {name: importlib.metadata.version(key) for key, name in _PACKAGES.items()}


def git_commit() -> str | None:
    """Return the commit of the checkout that gemix is imported from; None outside of one."""
    command = ["git", "-C", str(Path(gemix.__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
