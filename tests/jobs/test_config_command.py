"""``gemix config`` and the sections in the help of the commands."""

from __future__ import annotations

import importlib

import pytest

from gemix.config import PipelineConfig, load
from gemix.core.config_schema import field_docs, field_types
from jobs._runtime import cli


def printed(capsys, *arguments: str) -> str:
    assert cli.main(["config", *arguments]) == 0
    return capsys.readouterr().out


def test_every_setting_is_printed_with_all_that_is_to_be_known(capsys):
    text = " ".join(printed(capsys, "-c", "iqoth128").split())
    for entry in field_docs(PipelineConfig):
        assert f"{entry.name} = " in text
        assert f"{' '.join(entry.doc.split())} {entry.allowed}; default " in text
    assert "gan.kimg = 2000 " in text and "from 0 to 1e6; default 5000 " in text
    assert "gan.cgan_lr = 0.0002 " in text and "default 0.0002; only for cgan " in text
    assert "default false; may change between attempts " in text
    assert "synthesis.methods = [softmax, dirichlet, onehot] " in text


def test_lines_are_aligned(capsys):
    lines = printed(capsys, "labels").splitlines()
    assert lines[0] == "labels: Samplers of soft labels."
    assert all(line.startswith("  labels.") or not line[:40].strip() for line in lines[1:])
    assert max(map(len, printed(capsys).splitlines())) <= 110


def test_chosen_sections_and_overrides(capsys):
    text = printed(capsys, "classifier", "gan", "gan.kimg=7", "synthesis.count=3")
    assert "gan.kimg = 7 " in text and "classifier.lr = 0.001 " in text  # the demo's
    assert "synthesis" not in text
    assert text.index("gan.kimg") < text.index("classifier.lr")  # in the order of the tree


def test_yaml_is_a_configuration(capsys, tmp_path):
    file = tmp_path / "resolved.yaml"
    file.write_text(printed(capsys, "--yaml", "-c", "covidx128", "gan.seed=5"))
    assert load(str(file)) == load("covidx128", ["gan.seed=5"])
    file.write_text(printed(capsys, "--yaml", "gan"))
    assert load(str(file)).gan == load("demo").gan
    assert load(str(file)).data == PipelineConfig().data


def test_an_unknown_section_is_named(capsys):
    assert cli.main(["config", "gans"]) == 2
    assert "did you mean 'gan'" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_names_the_sections_that_a_command_reads(name):
    command = importlib.import_module(f"jobs.{name.replace('-', '_')}").COMMAND
    assert set(command.sections) <= set(field_types(PipelineConfig))
    words = f"settings: {' '.join(command.sections)} "
    assert (words in command.parser().format_help()) == bool(command.sections)
