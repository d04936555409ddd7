"""Stop on Ctrl-C or SIGTERM: at once, or after the step of a training, which saves a checkpoint.

A command installs :data:`STOP`'s handlers; where nobody does, as in a notebook, Ctrl-C is Python's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised where a signal ends the work. No :class:`Exception`: nothing retries after it.

    Args:
        signum: number of the signal.
    """

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum


class StopSignals:
    """The handlers of SIGINT and SIGTERM.

    A signal raises :class:`Stopped` in the main thread, wherever that is. Inside :meth:`deferred`
    the first one sets :attr:`requested` only, and the second one raises.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._saving: list[Callable[[], bool]] = []
        self._installed = False

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._signum is not None

    def install(self) -> None:
        """Take over both signals; again after a library has replaced a handler."""
        if threading.current_thread() is threading.main_thread():
            self._installed = True
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def reinstall(self) -> None:
        """Install again if :meth:`install` was called before."""
        if self._installed:
            self.install()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Install the handlers within the block and restore the earlier ones after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._signum = None
        self.install()
        try:
            yield
        finally:
            self._installed = False
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, when: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Let the first signal set :attr:`requested` only: the block polls it and saves its work.

        Args:
            when: called by the handler; returns whether there is something to wait for.

        Raises:
            Stopped: at the end of the block, if a signal came within it.
        """
        self._saving.append(when)
        try:
            yield
        except Stopped as stopped:  # of the block, which need not know the signal
            raise Stopped(self._signum or stopped.signum) from None
        finally:
            self._saving.pop()
        if self._signum is not None:
            raise Stopped(self._signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        first = self._signum is None
        if first:
            self._signum = signum
        if first and any(when() for when in self._saving):
            _say("stopping after this step; again to stop now")
            return
        _say("stopping")
        raise Stopped(self._signum)


def _say(text: str) -> None:
    # logging and buffered streams hold locks that the interrupted code may have
    os.write(2, f"{time.strftime('%H:%M:%S')} gemix: {text}\n".encode())


STOP = StopSignals()
"""The handlers of this process."""
