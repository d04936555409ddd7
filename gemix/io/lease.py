"""A lease on a directory: one process at a time writes it.

The lease is a file ``<name>.lease-<number>.json`` that says who holds it; the highest number
counts. A new holder creates the next number, which :meth:`gemix.io.storage.Store.create` lets one
process do. The holder renews the time in its file. A dead process holds nothing: on the same host a
lease ends with its process, on other hosts when it has not been renewed for `EXPIRY_SECONDS`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from typing import Any

from gemix.core.errors import DataError, GemixError, LeaseHeldError
from gemix.io.storage import Store

log = logging.getLogger(__name__)

RENEW_SECONDS = 30.0
EXPIRY_SECONDS = 300.0  # clocks of hosts may differ by some seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lease.

    Attributes:
        command: what it runs, for people.
        host, pid, started: the process; `started` tells it from a later one of the same number.
        since, renewed: seconds since 1970.
        token: random, one a lease.
    """

    command: str
    host: str
    pid: int
    started: str
    since: float
    renewed: float
    token: str

    @property
    def is_alive(self) -> bool:
        """Whether the process still holds the lease."""
        if self.host == socket.gethostname():
            return _process_start(self.pid) == self.started
        return time.time() - self.renewed < EXPIRY_SECONDS

    def __str__(self) -> str:
        since = datetime.datetime.fromtimestamp(self.since).isoformat(" ", "seconds")
        ago = max(0, round(time.time() - self.renewed))
        return (
            f"{self.command} (process {self.pid} on {self.host}, since {since}, renewed {ago} s "
            "ago)"
        )


class Lease:
    """Hold a directory while a block runs.

    Args:
        store: the directory.
        name: what is leased, such as ``train-gan``.

    Raises:
        LeaseHeldError: on entering, if another living process holds it.
    """

    def __init__(self, store: Store, name: str):
        self.store, self.name = store, name
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._file = ""
        now = time.time()
        self.holder = Holder(
            command=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_process_start(os.getpid()) or "",
            since=now,
            renewed=now,
            token=secrets.token_hex(8),
        )

    def __enter__(self) -> Lease:
        """Acquire the lease and start to renew it."""
        earlier = self._leases()
        self._refuse_if_held(earlier)
        newest = max(earlier, default=0)
        self._file = f"{self.name}.lease-{newest + 1:06d}.json"
        if not self.store.create(self._file, self._content()):
            self._refuse_if_held(self._leases(), even_dead=True)
        try:
            # another process may have created a lease in between
            self._refuse_if_held(self._leases())
        except LeaseHeldError:
            self.store.delete(self._file)
            raise
        for number in earlier:
            self.store.delete(f"{self.name}.lease-{number:06d}.json")
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to renew the lease and release it."""
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            self.store.delete(self._file)

    def _leases(self) -> dict[int, Holder]:
        """Return the holders of all leases of this name, by number."""
        pattern = re.compile(rf"{re.escape(self.name)}\.lease-(\d+)\.json")
        found = {}
        for file in self.store.list():
            if match := pattern.fullmatch(file):
                try:
                    found[int(match[1])] = Holder(**self.store.read_json(file))
                except (DataError, TypeError):  # released meanwhile, or not ours
                    continue
        return found

    def _refuse_if_held(self, leases: dict[int, Holder], even_dead: bool = False) -> None:
        for number, holder in sorted(leases.items(), reverse=True):
            if holder.token != self.holder.token and (even_dead or holder.is_alive):
                raise LeaseHeldError(
                    f"{self.store.url}: in use by {holder}; wait for it or end it, or choose "
                    "another --workdir. If you are sure that it is dead, delete "
                    f"{self.store.url}/{self.name}.lease-{number:06d}.json"
                )

    def _is_ours(self) -> bool:
        """Return whether the file still names this process."""
        try:
            return self.store.read_json(self._file)["token"] == self.holder.token
        except (DataError, KeyError, TypeError):
            return False

    def _content(self) -> bytes:
        value: dict[str, Any] = dataclasses.asdict(self.holder) | {"renewed": time.time()}
        return f"{json.dumps(value, indent=1)}\n".encode()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                if not self._is_ours():
                    log.warning(
                        "%s: the lease %s was deleted; another process may write here now",
                        *(self.store.url, self._file),
                    )
                    return
                self.store.write_bytes(self._file, self._content())
            except (OSError, GemixError) as error:  # an outage; the lease lasts for a while
                log.warning("%s: the lease is not renewed: %s", self.store.url, error)


def _process_start(pid: int) -> str | None:
    """Return the start time of a process, None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return None
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
