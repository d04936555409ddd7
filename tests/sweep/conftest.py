"""Studies in a database of SQLite, and objectives that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gemix.sweep.config import SweepConfig
from gemix.sweep.database import Retrying, connect
from gemix.sweep.objective import Scores
from gemix.sweep.space import SearchSpace
from gemix.sweep.study import Proposal, SweepStudy

OpenStudy = Callable[..., SweepStudy]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def open_study(url: str) -> OpenStudy:
    """Opens the study as a new process would."""

    def open_(identity: dict | None = None, **settings) -> SweepStudy:
        config = SweepConfig(**{"trials": 8, "seeds": 2, "sampler": "tpe"} | settings)
        space = SearchSpace(config, lr=1e-3, model="resnet10t")
        storage = connect(config.storage or url)
        return SweepStudy(storage, config, space, identity or {}, Retrying("the database", 0.0))

    return open_


def scores_of(proposal: Proposal, macro_f2: float | None = None, fnr: float = 0.2) -> list[Scores]:
    """Two seeds' scores, a function of the parameters."""
    ratio, bias = proposal.params["ratio"], proposal.params.get("bias", 0.0)
    value = 0.8 + 0.01 * ratio * bias if macro_f2 is None else macro_f2
    return [Scores(macro_f2=value, fnr=fnr), Scores(macro_f2=value + 0.02, fnr=fnr)]


def run_all(study: SweepStudy) -> list[Proposal]:
    """Run every trial that is left."""
    done = []
    while (proposal := study.propose()) is not None:
        study.complete(proposal.number, scores_of(proposal))
        done.append(proposal)
    return done
