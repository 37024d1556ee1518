"""An HTTP server that answers as a test says: for the faults of an endpoint, and to serve recorded answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Faulty:
    """Answers each POST by `say(server, body)` → (status, headers, text); remembers what it was asked."""

    def __init__(self, say, models=("m",)):
        self.say, self.models = say, models
        self.asked, self.keys, self.most, self.now = [], set(), 0, 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, {}, json.dumps({"object": "list", "data": [{"id": m} for m in outer.models]}))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(body)
                    outer.keys.add(self.headers["Authorization"])
                    outer.now += 1
                    outer.most = max(outer.most, outer.now)
                try:
                    answer = outer.say(outer, body)
                finally:
                    with outer.lock:
                        outer.now -= 1
                if answer is None:
                    self.connection.close()
                else:
                    self.reply(*answer)

            def reply(self, status, headers, text):
                data = text.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args): ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def said(text="hello", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return 200, {}, json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], "usage": usage})  # fmt: skip


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.delenv("POSTTRAIN_WRITER_KEY", raising=False)
    made = []

    def start(say, **more):
        made.append(Faulty(say, **more))
        return made[-1]

    start.said = said
    yield start
    for server in made:
        server.stop()
