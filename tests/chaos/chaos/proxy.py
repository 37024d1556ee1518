"""A server that misbehaves: it stands in front of a real one, so that its good answers are real, and spoils them on demand."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Mode = Literal["well", "slow", "500", "garbage", "hang", "gone"]

GARBAGE: tuple[bytes, ...] = (
    b"<html><body>502 Bad Gateway</body></html>",
    b"",
    b"null",
    b"{}",
    b'{"data": []}',
    b'{"choices": []}',
    b'{"choices": [{"text": "4", "finish_reason": "stop", "logprobs": null}]}',
    b'{"model": "x", "choices": [{"token_ids": "no", "logprobs": {"token_logprobs": [null]}}]}',
    b"\xff\xfe\x00\x01" * 20,
    b'{"data": [{"id"',
)
"""Bodies of answers that say 200, taken in turn."""


class Proxy:
    """One port of this machine in front of `upstream` (`http://host:port`).

    Args:
        key: sent to the server with requests that bring none.
        slow: seconds that mode `slow` keeps an answer back.
    """

    def __init__(self, upstream: str, key: str | None = None, slow: float = 1.0):
        self.upstream = urlsplit(upstream)
        self.key = key
        self.slow = slow
        self.mode: Mode = "well"
        self.asked: list[tuple[float, str]] = []
        """When a completion was asked for (monotonic), and which: model, prompt and seed."""
        self._changed = threading.Condition()
        self._armed: tuple[int, Callable[[], None]] | None = None
        self._open: set[socket.socket] = set()
        self._turn = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._server: ThreadingHTTPServer | None = None
        self._listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: Mode) -> None:
        """From now on, for what is under way too."""
        with self._changed:
            before, self.mode = self.mode, mode
            self._changed.notify_all()
        if mode == "gone":
            self._vanish()
        elif before == "gone":
            self._listen()

    def arm(self, do: Callable[[], None], after: int = 3) -> None:
        """Do it when so many more completions were asked for: in mid-generation, at the same place every time."""
        with self._changed:
            self._armed = (after, do)

    def close(self) -> None:
        self.set("gone")

    # -- inside -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy._open.add(self.connection)

            def finish(self) -> None:
                proxy._open.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                proxy._pass(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass  # connections that were cut on purpose

        self._server = Listener(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _vanish(self) -> None:
        """As a killed process: nobody listens, and all connections are reset."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        is_completion = handler.path == "/v1/completions"
        if is_completion:
            self._note(body)
        if not self._spoil(handler, is_completion):
            status, kind, answer = self._real(handler, body)
            if not self._spoil(handler, is_completion):  # it may have begun in between
                self._send(handler, status, kind, answer)

    def _note(self, body: bytes) -> None:
        asked = json.loads(body)
        which = json.dumps([asked.get("model"), asked.get("prompt"), asked.get("seed")])
        do = None
        with self._changed:
            self.asked.append((time.monotonic(), which))
            if self._armed is not None:
                left, what = self._armed
                self._armed = (left - 1, what) if left > 1 else None
                do = what if left == 1 else None
        if do is not None:
            do()

    def _spoil(self, handler: BaseHTTPRequestHandler, is_completion: bool) -> bool:
        """True if the request was dealt with."""
        with self._changed:
            mode = self.mode
            if mode == "hang":
                handler.close_connection = True
                self._changed.wait_for(lambda: self.mode != "hang")
                return True
        if mode == "gone":
            handler.close_connection = True
            return True
        if mode == "500":
            self._send(handler, 500, "application/json", b'{"error": {"message": "EngineCore died unexpectedly"}}')
            return True
        if mode == "garbage":
            self._turn += 1
            self._send(handler, 200, "application/json", GARBAGE[self._turn % len(GARBAGE)])
            return True
        if mode == "slow" and is_completion:
            time.sleep(self.slow / 2)  # asked twice for each request
        return False

    def _real(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        headers = {
            k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection", "accept-encoding")
        }
        if self.key and "authorization" not in {k.lower() for k in headers}:
            headers["Authorization"] = f"Bearer {self.key}"
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=600)
        try:
            connection.request(handler.command, handler.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", "application/json"), answer.read()
        except (OSError, http.client.HTTPException):
            handler.close_connection = True
            raise ConnectionResetError from None  # the caller sees what it would see without a proxy
        finally:
            connection.close()

    def _send(self, handler: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
