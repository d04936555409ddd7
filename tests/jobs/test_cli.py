"""The command line: help, exit codes, messages."""

from __future__ import annotations

import pytest

from jobs._runtime import cli
from jobs.sample import parse_seeds


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_says_what_is_read_written_and_what_it_costs(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([command, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for word in ("reads:", "writes:", "costs:", "--workdir", "section.key=value"):
        assert word in text


def test_the_overview_lists_every_command(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in cli.COMMANDS)


def test_an_unknown_command_is_a_usage_error(capsys):
    assert cli.main(["trian-gan"]) == 2
    assert "unknown command 'trian-gan'" in capsys.readouterr().err


def test_bad_settings_exit_with_2_and_no_traceback(capsys):
    assert cli.main(["prepare", "data.resolutoin=64", "gan.kimg=-1"]) == 2
    text = capsys.readouterr().err
    assert "did you mean 'resolution'" in text and "gan.kimg: given -1" in text
    assert "Traceback" not in text


def test_a_missing_step_is_named(tmp_path, capsys):
    assert cli.main(["sample", "-w", str(tmp_path), "--label", "1,0,0"]) == 1
    assert "run gemix train-gan first" in capsys.readouterr().err


def test_seeds():
    assert parse_seeds("0-3,9") == [0, 1, 2, 3, 9]
