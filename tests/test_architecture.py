"""Rules that hold for the whole tree: who imports whom, how long files are, what they name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for top in ("gemix", "jobs", "tune") for path in (ROOT / top).rglob("*.py"))
# from the bottom up; a package imports itself and what lies in the layers below
LAYERS = (
    {"core"},
    {"io"},
    {"data", "labels", "gan", "classifier", "evaluation"},
    {"synthesis", "zoo", "serving"},
    {"sweep", "comparison", "promotion"},
    {"config"},
    {"tracking"},
    {"report"},
    {"steps"},
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}
GAN_MAY_IMPORT = {"torch", "triton", "numpy", "safetensors", "gemix"}  # triton: of torch for GPUs
GAN_MAY_IMPORT_OF_GEMIX = {"core", "gan"}
MODULES_OF_A_FOLDER = 14
ONE_FILE_A_COMMAND = {"jobs": 26}  # a list of names to pick from, not a room to search


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too.

    What only a type checker imports does not count.
    """
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tracked() -> list[Path]:
    """Text files of the checkout that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / line for line in done.stdout.splitlines()]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:4096]]


def test_the_library_never_imports_ray_nor_what_binds_it_to_ray():
    wrong = {
        name(path): bad
        for path in SOURCES
        if name(path).startswith("gemix/")
        and (bad := {m for m in imports(path) if m.split(".")[0] in ("ray", "jobs", "tune")})
    }
    assert wrong == {}


def test_imports_run_down_the_layers():
    """But for the container of images, which is what flows between the parts."""
    wrong = set()
    for path in SOURCES:
        here = name(path).removesuffix(".py").split("/")
        if here[0] != "gemix" or here[1] == "__init__":
            continue
        for module in imports(path):
            top, *rest = module.split(".")
            if top != "gemix" or not rest or rest[0] not in RANK or rest[0] == here[1]:
                continue
            if RANK[rest[0]] >= RANK.get(here[1], -1) and not module.startswith(
                "gemix.data.image_set"
            ):
                wrong.add((name(path), module))
    assert wrong == set()


def test_the_gan_imports_little():
    for path in (ROOT / "gemix/gan").rglob("*.py"):
        for module in imports(path):
            top, *rest = module.split(".")
            assert top in GAN_MAY_IMPORT | sys.stdlib_module_names, f"{name(path)}: {module}"
            if top == "gemix" and rest:
                assert rest[0] in GAN_MAY_IMPORT_OF_GEMIX, f"{name(path)}: {module}"


def test_the_gan_runs_where_only_torch_and_numpy_are_installed():
    modules = [
        name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in (ROOT / "gemix/gan").rglob("*.py")
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'ray', 'pyarrow', 'yaml', 'mlflow', 'timm', 'pandas', 'PIL'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize(
    "module",
    ["gemix.config", "jobs._runtime.cli", "jobs.prepare", "jobs.config", "jobs._runtime.ray_data"],
)
def test_what_every_process_loads_is_light(module):
    """PyTorch, timm and MLflow take seconds to import; help and readers of files do without."""
    program = (
        f"import sys, {module}\n"
        "sys.exit(', '.join(sorted({'torch', 'timm', 'mlflow'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert not text or ast.get_docstring(ast.parse(text))


def test_folders_hold_few_modules():
    folders = Counter(name(path.parent) for path in SOURCES if path.name != "__init__.py")
    limits = {folder: ONE_FILE_A_COMMAND.get(folder, MODULES_OF_A_FOLDER) for folder in folders}
    assert {folder: n for folder, n in folders.items() if n > limits[folder]} == {}


def test_nothing_tells_where_it_was_written():
    """No absolute path of a machine, no package index address."""
    machine = re.compile(r"(?<![\w.~/])/(?:work|root|tmp|home/(?!ray\b))(?:/|\b)")
    index = re.compile(r"https?://[^\s/]*(?:pypi|nexus|artifactory|simple/)|--(?:extra-)?index-url")
    here = Path(__file__).resolve()
    wrong = [
        f"{name(path)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path.resolve() != here
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line) or index.search(line)
    ]
    assert wrong == []


def test_constraints_pin_versions_and_name_no_address():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)] == []
