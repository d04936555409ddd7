"""Small scans on a disk, made for the occasion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemix.data.config import PhantomConfig
from gemix.data.phantom import render_slice
from gemix.data.windows import apply_window


@pytest.fixture(scope="session")
def grey_slices() -> list[np.ndarray]:
    """Twelve phantom slices as 8-bit images with a table in view: uint8 [96, 96]."""
    config = PhantomConfig(slices_per_patient=2)
    return [
        apply_window(render_slice(config, "cancer", i // 2, i % 2, 96), -500, 1400)
        for i in range(12)
    ]


@pytest.fixture
def make_folder(tmp_path: Path, grey_slices: list[np.ndarray]) -> Callable[..., Path]:
    """Writes a folder with one sub-folder a class and so many PNG files in each."""

    def make(name: str = "scans", **classes: int) -> Path:
        root = tmp_path / name
        for class_index, (class_name, count) in enumerate((classes or {"a": 6, "b": 6}).items()):
            (root / class_name).mkdir(parents=True)
            for i in range(count):
                pixels = grey_slices[i % 12].copy()
                pixels[0, :2] = class_index, i  # no two files alike
                Image.fromarray(pixels).save(root / class_name / f"slice {i + 1}.png")
        return root

    return make


@pytest.fixture
def make_covidx(tmp_path: Path, grey_slices: list[np.ndarray]) -> Callable[..., Path]:
    """Writes a COVIDx folder: `patients` patients a class, two slices each, on a list each."""

    def make(patients: int = 4, lists: tuple[str, ...] = ("train", "val", "test")) -> Path:
        root = tmp_path / "covidx"
        (root / "3A_images").mkdir(parents=True)
        lines: dict[str, list[str]] = {name: [] for name in lists}
        ids = []
        for class_index in range(3):
            for patient in range(patients):
                ids.append(f"P{class_index}_{patient}")
                for number in range(2):
                    name = f"P{class_index}_{patient}_77_{number:04d}.png"
                    Image.fromarray(grey_slices[number]).save(root / "3A_images" / name)
                    chosen = lists[patient % len(lists)]
                    lines[chosen].append(f"{name} {class_index} 4 10 92 84")
        for name in lists:
            (root / f"{name}_COVIDx_CT-3A.txt").write_text("\n".join(lines[name]) + "\n")
        rows = "".join(f"{patient},src\n" for patient in ids)
        (root / "metadata.csv").write_text("patient id,source\n" + rows)
        return root

    return make
