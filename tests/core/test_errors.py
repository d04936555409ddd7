"""The taxonomy of errors: what is retried, and what commands exit with."""

from __future__ import annotations

import pickle

import pytest

from gemix.core import errors
from gemix.core.errors import ConfigError, GemixError, TransientError

EVERY = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
]
TRANSIENT = {"TransientError", "StoreError", "DiskFullError", "TrackingError", "WorkerLostError"}


def test_outages_are_transient_and_nothing_else_is():
    assert {kind.__name__ for kind in EVERY if issubclass(kind, TransientError)} == TRANSIENT


@pytest.mark.parametrize("kind", EVERY)
def test_an_error_has_an_exit_code_and_survives_pickling(kind):
    assert issubclass(kind, GemixError)
    assert kind.exit_code == (2 if kind is ConfigError else 1)
    again = pickle.loads(pickle.dumps(kind("scan.png: value; remedy")))
    assert type(again) is kind and str(again) == "scan.png: value; remedy"


@pytest.mark.parametrize("kind", EVERY)
def test_the_documentation_names_every_error(kind):
    assert kind.__name__ in errors.__doc__
