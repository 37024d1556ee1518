"""An OpenAI-compatible endpoint on loopback whose judge is code: a criterion `says WORD` is met if WORD is in the last turn.

It finds criterion and last turn by the fence that the prompt itself announces, as a model would. `script` says what it does to
the n-th request; as a program (`judge_server.py PORT`) it always answers.
"""

import contextlib
import json
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def fenced(prompt, name):
    tag = re.search(r"where TAG is ([0-9a-f]{16})\.", prompt)[1]
    found = re.findall(rf"^\[begin {name} {tag}\]\n(.*?)\n\[end {name} {tag}\]$", prompt, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{len(found)} fences of {name}"
    return found[0]


def verdict(criterion, said):
    word = re.search(r"says (\S+)", criterion)[1]
    return {"explanation": f"looked for {word}", "criteria_met": word in said}


def judged(body):
    (message,) = body["messages"]
    prompt = message["content"]
    said = fenced(prompt, "last turn")
    if "and one criterion." in prompt.partition("\n")[0]:
        return verdict(fenced(prompt, "criterion"), said)
    lines = fenced(prompt, "criteria").split("\n")
    return {line.split(".")[0]: verdict(line, said) for line in lines}


class Server:
    """`script(n, body)` gives what is done to request n (from 0): None = judge it, a status (with headers), a text to answer,
    or `hang`, `drip`, `close`, `cut`, `html`."""

    def __init__(self, script=lambda n, body: None, port=0):
        self.script = script
        self.bodies, self.keys, self.headers = [], [], []
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        self.sockets = set()
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer.sockets.add(self.connection)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    n = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    outer.headers.append(dict(self.headers))
                    outer.at_once += 1
                    outer.most = max(outer.most, outer.at_once)
                try:
                    outer.answer(self, outer.script(n, body), body)
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def log_message(self, *args):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *args):  # a client that hung up
                pass

        self.http = Listener(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler, action, body):
        if action == "hang":
            self.over.wait(60)
            return
        if action == "close":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        if isinstance(action, int):
            action = (action, {})
        if isinstance(action, tuple):
            send(
                handler,
                action[0],
                {"error": {"message": f"told so, {handler.headers.get('Authorization')}"}},
                action[1],
            )
            return
        if action == "html":
            handler.send_response(200)
            handler.send_header("Content-Type", "text/html")
            handler.send_header("Content-Length", "6")
            handler.end_headers()
            handler.wfile.write(b"<html>")
            return
        if isinstance(action, dict):
            send(handler, 200, action, {})
            return
        text = action if action not in (None, "drip", "cut") else json.dumps(judged(body))
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "length" if action == "cut" else "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
        }
        if action != "drip":
            send(handler, 200, answer, {})
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not self.over.wait(0.1):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    def stop(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def send(handler, status, content, headers):
    data = json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


if __name__ == "__main__":
    Server(port=int(sys.argv[1]))
    time.sleep(600)
