"""gemix sweep on Ray Tune: to the end, and through Ctrl-C and kills of the driver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from gemix.classifier.bundle import Classifier
from gemix.config import load
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.promotion.learned_from import why_other_images
from jobs.sweep import COMMAND
from tests.jobs.sweep_files import SWEEP, write_generator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(tiny_overrides) -> list[str]:
    return [*tiny_overrides, *SWEEP, "sweep.grace_epochs=4"]


@pytest.fixture(scope="module")
def workdir(arguments, prepared) -> str:
    write_generator(load("demo", arguments), prepared)
    return prepared.workdir


def trials_of(workdir: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(
        study_name="sweep", storage=f"sqlite:///{Workspace(workdir).sweep}/study.db"
    ).trials


def states_of(workdir: str) -> list[str]:
    return [
        "INTERRUPTED" if "interrupted" in trial.user_attrs else trial.state.name
        for trial in trials_of(workdir)
    ]


def start(workdir: str, arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "jobs.sweep", "-w", workdir, *arguments]
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def wait_for(process: subprocess.Popen, word: str) -> None:
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return
    pytest.fail("".join(lines))


def assert_winner_has_its_images(workspace: Workspace, name: str) -> None:
    """Ray wrote the images that the winner's best classifier was trained on."""
    classifier = Classifier.load(Store(workspace.sweep) / f"confirmed/{name}")
    real, made = (Manifest.load(Store(url)) for url in (workspace.data, workspace.sweep_winner))
    assert why_other_images(classifier, real, {classifier.method: made}) is None


def test_stopped_killed_and_run_to_the_end(workdir, arguments, capsys, monkeypatch):
    long = [*arguments, "classifier.epochs=20", "sweep.concurrent=1"]
    stopped = start(workdir, long)
    wait_for(stopped, "trial 1 (published default)")
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait() == 130
    assert "the same command resumes" in stopped.stderr.read()
    assert states_of(workdir) == ["COMPLETE", "INTERRUPTED", "WAITING"]

    killed = start(workdir, long)
    wait_for(killed, "trial 2 (published default)")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert states_of(workdir)[:3] == ["COMPLETE", "INTERRUPTED", "RUNNING"]

    with monkeypatch.context() as patch:
        # a winner that has synthetic images, whatever chance says
        patch.setattr(
            "gemix.steps.sweep.confirm.choose_winner", lambda found, *_, **__: (found[1], {})
        )
        assert COMMAND.main(["-w", workdir, *long]) == 0
    assert "winner: published default" in capsys.readouterr().out
    states = states_of(workdir)
    assert "RUNNING" not in states and "WAITING" not in states
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 4
    names = [t.user_attrs.get("name") for t in trials_of(workdir) if t.state.name == "COMPLETE"]
    assert names.count("real only") == names.count("published default") == 1
    results = Store(Workspace(workdir).sweep).read_json("sweep.json")
    assert len(results["trials"]) == 4
    confirmed = results["confirmed"]
    assert confirmed["candidates"][0]["name"] == "real only"
    assert confirmed["winner"]["name"] == "published default"
    assert_winner_has_its_images(Workspace(workdir), confirmed["winner"]["classifier"])
    assert 0 <= confirmed["test"]["results"]["real"]["macro_f2"] <= 1
    reports = trials_of(workdir)[results["published_default"]].intermediate_values
    assert sorted(reports) == list(range(1, 41))

    assert COMMAND.main(["-w", workdir, *long]) == 1
    assert "raise sweep.trials to go on" in capsys.readouterr().err
    assert COMMAND.main(["-w", workdir, *long, "sweep.trials=5"]) == 0
    assert len(Store(Workspace(workdir).sweep).read_json("sweep.json")["trials"]) == 5


def test_every_trial_failing_ends_it_with_the_reason(workdir, arguments, capsys):
    """The reference is fine; images cannot be kept where a file has their directory's name."""
    images = Path(Workspace(workdir).sweep) / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.parent.mkdir(exist_ok=True)
    images.write_text("no directory")
    more = ["sweep.study=failing", "sweep.max_failures=2", "sweep.trials=9"]
    assert COMMAND.main(["-w", workdir, *arguments, *more]) == 1
    images.unlink()
    said = capsys.readouterr().err
    assert "2 trials failed one after another, the last one:" in said and "images" in said
    assert "Traceback" not in said
