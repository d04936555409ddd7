"""Studies in a database of SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gemix.sweep.config import SweepConfig
from gemix.sweep.database import Retrying, connect
from gemix.sweep.space import SearchSpace
from gemix.sweep.study import SweepStudy

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
