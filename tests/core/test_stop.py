"""Signals stop the work at once, or after the step of a training."""

from __future__ import annotations

import re
import signal

import pytest

from gemix.core.stop import SIGNALS, Stopped, StopSignals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_work_at_once(number, code, capfd):
    stop = StopSignals()
    with pytest.raises(Stopped) as stopped, stop.installed():
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert re.fullmatch(r"\d\d:\d\d:\d\d gemix: stopping\n", capfd.readouterr().err)


def test_the_first_signal_is_polled_and_the_second_stops_at_once(capfd):
    stop, steps = StopSignals(), []
    with pytest.raises(Stopped) as stopped, stop.installed(), stop.deferred():
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        steps.append("the step ends")
        signal.raise_signal(signal.SIGINT)
        steps.append("never")
    assert steps == ["the step ends"] and stopped.value.signum == signal.SIGTERM
    assert "stopping after this step; again to stop now\n" in capfd.readouterr().err


def test_work_that_ends_after_a_signal_is_stopped_then():
    stop = StopSignals()
    with pytest.raises(Stopped), stop.installed(), stop.deferred():
        signal.raise_signal(signal.SIGINT)


def test_work_that_polls_need_not_know_the_signal():
    stop = StopSignals()
    with pytest.raises(Stopped) as stopped, stop.installed(), stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        raise Stopped()
    assert stopped.value.exit_code == 143


def test_work_that_has_nothing_to_save_is_not_waited_for():
    stop = StopSignals()
    with stop.installed(), pytest.raises(Stopped), stop.deferred(when=lambda: False):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal was not answered")


def test_earlier_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals().installed():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_handlers_that_a_library_replaced_are_installed_again():
    stop = StopSignals()
    before = signal.getsignal(signal.SIGTERM)
    stop.reinstall()
    assert signal.getsignal(signal.SIGTERM) == before
    with stop.installed():
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.reinstall()
        assert signal.getsignal(signal.SIGTERM) == ours
