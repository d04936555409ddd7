"""The documents: links that lead somewhere, commands and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemix.config import PipelineConfig
from jobs._runtime.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "infra/README.md"],
)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not heading or heading in headings(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_commands_and_files_that_a_page_names_exist(page):
    text = text_of(page)
    for module in re.findall(r"python3? -m ((?:jobs|tests|gemix)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module
    for file in re.findall(r"`((?:gemix|jobs|tests|infra|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / file).exists(), file
    for folder in re.findall(r"`((?:gemix|jobs|tests|infra|docs)/(?:[\w-]+/)*)`", text):
        assert (ROOT / folder).is_dir(), folder
    for command in re.findall(r"(?:^|`)gemix ([a-z][a-z-]+)(?= |$|`)", text, re.M):
        assert command in COMMANDS, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    config = PipelineConfig().to_mapping()
    sections = "|".join(config)
    if page.name == "CHANGELOG.md":
        return  # it names what was
    for section, path in re.findall(rf"`(?:'|\b)({sections})\.((?:[a-z0-9_]+\.?)+)", text_of(page)):
        inner = config[section]
        for key in path.split("."):
            assert key in inner, f"{section}.{path}"
            inner = inner[key]


def test_the_example_of_a_label_sampler_keeps_the_contract():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text_of(ROOT / "docs/extending.md"), re.S):
        exec(block, names)
    suite = names["TestSmoothed"]()
    tests = [name for name in dir(suite) if name.startswith("test_")]
    assert len(tests) >= 4
    for name in tests:
        getattr(suite, name)()


def test_the_readme_is_one_page():
    assert text_of(ROOT / "README.md").count("\n") <= 150
