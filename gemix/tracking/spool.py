"""Log entries of a run, kept in the work directory until the MLflow store has them.

Each process appends its operations to a file of JSON lines,
``mlflow-spool/<run>/<order>-<host>-<pid>-<random>.jsonl``, and a thread sends them, so that no call
waits for a server. A file that a process left behind is sent by the process that closes the run,
or by the next run in the work directory. An operation may be sent twice if a process dies in
between; metrics, params, tags, artifacts and datasets of the same content are the same in MLflow.

With a work directory in S3, where files cannot be appended to, the file lies in the process's
temporary directory and is copied to S3 while the server is away and at the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from gemix.core.errors import GemixError
from gemix.io.storage import Store

log = logging.getLogger(__name__)

Operation = Mapping[str, Any]
# sends operations, in order; returns those that the store refused, with the reason
Send = Callable[[str, Sequence[Operation]], list[tuple[Operation, str]]]

SPOOL, REFUSED = "mlflow-spool", "refused.jsonl"
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts while the server is away
_COPY_SECONDS = 300.0  # between copies to S3 meanwhile
_CHUNK, _CHUNK_BYTES = 200, 2**24  # operations sent at once, at most
_POLL_SECONDS = 0.1
_KEPT_IN_MEMORY = 10_000  # operations, where the spool cannot be written either


class Sender:
    """The operations that this process logs to one run.

    Thread-safe. No method raises: what fails is logged, once an outage.

    Args:
        folder: ``mlflow-spool`` in the work directory.
        target: the MLflow store without credentials; only what was meant for it is sent to it.
        run_id: the run.
        send: see :data:`Send`; raises while the store is away.
        owner: whether this process started the run.
    """

    def __init__(self, folder: Store, target: str, run_id: str, send: Send, owner: bool):
        self.root, self.folder = folder, folder / run_id
        self.target, self.run_id, self._send = target, run_id, send
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        order = 0 if owner else 1  # a run that was started offline is made by its owner's file
        self.name = f"{order}-{host}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._changed = threading.Condition()
        self._file = _File(self.folder, self.name, {"run": run_id, "target": target})
        self._closing = self._adopting = False
        self._failures = 0  # in a row
        self._copied_at: float | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    def append(self, operation: Operation) -> None:
        """Keep an operation, to be sent soon."""
        with self._changed:
            self._file.append(operation)
            self._changed.notify_all()

    def adopt_others(self) -> None:
        """Send, in the background, what earlier runs left in the work directory."""
        with self._changed:
            self._adopting = True
            self._changed.notify_all()

    def close(self, seconds: float) -> int:
        """Send what is left, also of the run's other processes, for some seconds at most.

        Returns:
            The number of operations of this process that stay in the work directory.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        left = len(self._file)
        if left and not self.folder.is_local:
            self._copy()
        with self._changed:
            self._file.close()
        if not left:
            self._delete_copy()
            with contextlib.suppress(OSError):  # other processes, refused entries
                os.rmdir(self._file.folder)
                if self.folder.is_local:
                    os.rmdir(self.root.url)
        return left

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._failures:
                    wait = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1]
                    self._changed.wait_for(lambda: self._closing, wait)
                self._changed.wait_for(lambda: self._file or self._closing or self._adopting)
                if self._file.closed:
                    return
                chunk, closing, adopting = self._file.head(), self._closing, self._adopting
                self._adopting &= bool(chunk)
            try:
                if chunk:
                    self._deliver(self.run_id, chunk)
                    with self._changed:
                        self._file.forget(len(chunk))
                        empty = not self._file
                    if empty:
                        self._delete_copy()
                elif closing:
                    if not self._adopt(self.folder):
                        return
                    time.sleep(_POLL_SECONDS)  # a process of the run still sends, or ends
                elif adopting:
                    for run in _runs(self.root):
                        if run != self.run_id:
                            self._adopt(self.root / run)
            except Exception as error:  # whatever it is, the step goes on
                if closing:
                    return
                with self._changed:
                    self._adopting |= adopting and self._failures < len(_RETRY_SECONDS)
                self._failed(error)

    def _deliver(self, run_id: str, operations: Sequence[Operation]) -> None:
        refused = self._send(run_id, operations)
        if self._failures:
            log.warning("MLflow store %s answers again: sending what was kept", self.target)
            self._failures = 0
        if not refused:
            return
        with contextlib.suppress(OSError, GemixError):
            store = self.root / run_id
            earlier = store.read_bytes(REFUSED) if store.exists(REFUSED) else b""
            lines = [json.dumps({**operation, "refused": why}) for operation, why in refused]
            store.write_bytes(REFUSED, earlier + ("\n".join(lines) + "\n").encode())
        log.warning(
            "MLflow store %s refused %d entries of run %s (%s); they are kept in %s/%s/%s",
            *(self.target, len(refused), run_id, refused[0][1], self.root.url, run_id, REFUSED),
        )

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            log.warning(
                "%s. The step goes on; what it logs is kept in %s and sent when the store answers",
                *(str(error).split("; ")[0], self.folder.url),
            )
        self._failures += 1
        if self._copied_at is None or time.monotonic() - self._copied_at > _COPY_SECONDS:
            self._copy()

    def _copy(self) -> None:
        """Copy the unsent lines to S3."""
        if self.folder.is_local:
            return
        with self._changed:
            data = self._file.content()
        self._copied_at = time.monotonic()
        try:
            self.folder.write_bytes(self.name, data)
        except (OSError, GemixError) as error:
            log.warning("unsent MLflow entries are in this process alone: %s", error)

    def _delete_copy(self) -> None:
        if self._copied_at is not None:
            with contextlib.suppress(OSError, GemixError):
                self.folder.delete(self.name)
                self._copied_at = None

    def _adopt(self, store: Store) -> int:
        """Send the files of processes that have ended, and delete them.

        Returns:
            How many files with unsent operations belong to living processes.
        """
        held = 0
        for name in store.list():
            if name in (self.name, REFUSED) or not name.endswith(".jsonl"):
                continue
            with _claim(store, name) as (free, lines):
                header, *operations = lines or [{}]
                if not free:
                    held += bool(operations)
                elif header.get("target") == self.target:
                    for start in range(0, len(operations), _CHUNK):
                        self._deliver(header["run"], operations[start : start + _CHUNK])
                    store.delete(name)
                elif not operations:
                    store.delete(name)
        if store.is_local:
            with contextlib.suppress(OSError):  # it holds other files
                os.rmdir(store.url)
        return held


class _File:
    """The unsent operations of one process: lines of a locked file, in memory if that fails."""

    def __init__(self, store: Store, name: str, header: Operation):
        self._store, self._name = store, name
        self.folder = store.url if store.is_local else ""
        self._header = f"{json.dumps(header)}\n".encode()
        self._end = 0
        self._file: BinaryIO | None = None
        self._unsent: list[bytes | tuple[int, int]] = []  # lines, or their offset and length
        self._warned = self.closed = False

    def __len__(self) -> int:
        return len(self._unsent)

    def append(self, operation: Operation) -> None:
        line = f"{json.dumps(operation)}\n".encode()
        try:
            if self._file is None:
                self._open()
            start = self._end
            self._write(line)
            self._unsent.append((start, len(line)))
        except OSError as error:
            self._unsent.append(line)
            del self._unsent[:-_KEPT_IN_MEMORY]
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: cannot be written (%s); unsent entries are kept in memory",
                    *(self._store.url, error.strerror),
                )

    def head(self) -> list[Operation]:
        """Return the first operations."""
        found, size = [], 0
        for one in self._unsent[:_CHUNK]:
            line = self._line(one)
            size += len(line)
            if found and size > _CHUNK_BYTES:
                break
            found.append(json.loads(line))
        return found

    def forget(self, count: int) -> None:
        """Remove the first operations, which are sent."""
        del self._unsent[:count]
        if not self._unsent and self._file is not None and not self.closed:
            self._end = len(self._header)
            self._file.truncate(self._end)

    def content(self) -> bytes:
        """Return the file's bytes with the unsent operations alone."""
        return b"".join([self._header, *map(self._line, self._unsent)])

    def close(self) -> None:
        """Release the file, and delete it if all is sent."""
        self.closed = True
        if lost := sum(isinstance(one, bytes) for one in self._unsent):
            log.warning("%s: %d MLflow entries could not be kept", self._store.url, lost)
        if self._file is not None:
            if not self._unsent:
                with contextlib.suppress(OSError):
                    os.unlink(self._file.name)
            self._file.close()

    def _open(self) -> None:
        self.folder = self.folder or tempfile.mkdtemp(prefix="gemix-mlflow-")
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, self._name)
        self._file = open(path, "x+b", buffering=0)  # noqa: SIM115
        _lock(self._file.fileno())
        self._write(self._header)

    def _write(self, line: bytes) -> None:
        written = os.pwrite(self._file.fileno(), line, self._end)
        if written < len(line):  # the disk is full
            self._file.truncate(self._end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += len(line)

    def _line(self, one: bytes | tuple[int, int]) -> bytes:
        if isinstance(one, bytes):
            return one
        return os.pread(self._file.fileno(), one[1], one[0])


def _runs(folder: Store) -> list[str]:
    return sorted({name.partition("/")[0] for name in folder.list(recursive=True)})


@contextlib.contextmanager
def _claim(store: Store, name: str) -> Iterator[tuple[bool, list[dict[str, Any]]]]:
    """Give a file's lines, and whether its process has ended; the claim ends with the block."""
    if not store.is_local:
        yield True, _parse(store.read_bytes(name))
        return
    try:
        file = open(store.path(name), "rb")  # noqa: SIM115
    except FileNotFoundError:  # sent meanwhile
        yield False, []
        return
    with file:
        free = _lock(file.fileno())
        yield free, _parse(file.read())


def _parse(data: bytes) -> list[dict[str, Any]]:
    """Return the complete lines: a process, or the machine, may have ended within one."""
    lines = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def _lock(descriptor: int) -> bool:
    """Lock a file for this process; False if another one holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
