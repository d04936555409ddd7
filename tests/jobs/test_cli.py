"""The command line: help, exit codes, messages."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys

import pytest

import gemix
from gemix.core.logs import configure_logging
from jobs._runtime import cli
from jobs._runtime.command import GOMP_SPINCOUNT, Command
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


@pytest.mark.parametrize("arguments", [["--version"], ["prepare", "--version"]])
def test_the_version(arguments, capsys):
    with contextlib.suppress(SystemExit):
        assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"gemix {gemix.__version__}\n"


@pytest.fixture
def talk():
    """A command that logs at every level."""

    def run(request) -> None:
        log = logging.getLogger("gemix.talk")
        log.debug("details")
        log.info("progress")
        log.warning("trouble")

    yield Command(name="talk", summary="", reads="", writes="", costs="", run=run)
    configure_logging(logging.INFO)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-q"], ["talk: warning: trouble"]),
        ([], ["talk: progress", "talk: warning: trouble"]),
        (["-v"], ["talk: details", "talk: progress", "talk: warning: trouble"]),
    ],
)
def test_how_much_is_logged(talk, flags, said, capsys):
    assert talk.main(flags) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == said


def test_openmp_does_not_spin_for_long_in_the_process_of_a_command():
    """OpenMP itself tells its settings, when PyTorch loads it."""
    program = (
        "from jobs._runtime.command import Command\n"
        "def run(request):\n"
        "    import torch\n"
        "Command(name='c', summary='', reads='', writes='', costs='', run=run).main([])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_WAIT"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
    )
    assert f"GOMP_SPINCOUNT = '{GOMP_SPINCOUNT}'" in done.stderr


@pytest.mark.parametrize("arguments", [["train-gan"], ["pipeline"]])
def test_a_second_process_does_not_write_what_another_one_writes(arguments, tmp_path, capsys):
    program = (
        "import sys\nfrom gemix.io.lease import Lease\nfrom gemix.io.storage import Store\n"
        "with Lease(Store(sys.argv[1]), 'train-gan'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        assert cli.main([*arguments, "-w", str(tmp_path)]) == 1
        text = capsys.readouterr().err
        assert f"in use by train-gan (process {other.pid} on " in text and "since" in text
        other.kill()
    # a dead process holds nothing
    assert cli.main(["train-gan", "-w", str(tmp_path)]) == 1
    assert "data/manifest.json: not there" in capsys.readouterr().err
    assert list(tmp_path.glob("*.lease-*")) == []
