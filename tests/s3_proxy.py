"""An HTTP proxy in front of an S3 server that fails one request in five, in a seeded order."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("503", "reset", "slow", "truncated")
SLOW = 0.1  # seconds before the first byte of a slow answer
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length")
BLOCK = 5  # of so many requests in a row, one fails


class FaultyProxy:
    """Pass requests on to `upstream` and spoil one in five of the answers.

    Which one of each five and how follows from the seed and the count of requests alone. Spoiled
    requests are passed on where the answer is what fails (slow, truncated), so that a client
    meets writes that took place although it was told nothing.

    Attributes:
        requests: how many came in.
        faults: how many answers were spoiled, by kind.
        down: as long as it is true, every request is answered with 503.
        forbidden: buckets for which every answer is 403.
    """

    def __init__(self, upstream: str, seed: int = 0, faults: tuple[str, ...] = FAULTS):
        self.upstream = urlsplit(upstream)
        self.seed, self.kinds = seed, faults
        self.requests, self.faults = 0, Counter[str]()
        self.down, self.forbidden = False, set[str]()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Answers requests in threads for as long as the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def next_fault(self) -> str | None:
        """What is to go wrong with the request that has come in now."""
        with self._lock:
            block, place = divmod(self.requests, BLOCK)
            self.requests += 1
            chance = random.Random(f"{self.seed}-{block}")
            if not self.kinds or chance.randrange(BLOCK) != place:
                return None
            kind = chance.choice(self.kinds)
            self.faults[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that has hung up
            self._pass_on(self._body())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _pass_on(self, body: bytes) -> None:
        proxy: FaultyProxy = self.server.proxy
        fault = proxy.next_fault()
        fault = "503" if proxy.down else fault
        if self.path.lstrip("/").partition("?")[0].partition("/")[0] in proxy.forbidden:
            return self._refuse(403, "AccessDenied")
        if fault == "503":
            return self._refuse(503, "SlowDown")
        if fault == "reset":
            return self._reset()
        status, headers, data = self._ask(proxy.upstream, body)
        if fault == "slow":
            time.sleep(SLOW)
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if fault == "truncated":
            self.wfile.write(data[: len(data) // 2])
            return self._hang_up()
        self.wfile.write(data)
        return None

    def _ask(self, upstream, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, True, True)
            for name, value in self.headers.items():  # the host as signed, not the upstream's
                if name.lower() not in (*HOP_BY_HOP, "expect"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            if answer.status != 204:
                headers.append(("Content-Length", length or str(len(data))))
            return answer.status, headers, data

    def _refuse(self, status: int, code: str) -> None:
        data = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        # no time to linger: the peer gets a reset instead of an orderly end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()
