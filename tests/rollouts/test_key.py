"""Where the servers' key comes from, and that nothing a server says brings it back into a log or an error."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.engines import key
from rollouts.engines.vllm_server import VLLMServerEngine
from rollouts.records import EngineError, EngineSpec

KEY = "hunter2-0123456789"
SPEC = EngineSpec(model="m", eos_ids=(1,), pad_id=0, max_model_len=32)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("POSTTRAIN_VLLM_KEY", "POSTTRAIN_VLLM_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_environment_before_file_before_none(monkeypatch, tmp_path):
    assert key.read("POSTTRAIN_VLLM_KEY") is None
    (tmp_path / "k").write_text(f"{KEY}\r\n")
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY_FILE", str(tmp_path / "k"))
    assert key.read("POSTTRAIN_VLLM_KEY") == KEY
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", "other")
    assert key.read("POSTTRAIN_VLLM_KEY") == "other"


@pytest.mark.parametrize("value", [f"{KEY} two", f"{KEY}\n", f"\t{KEY}", f"{KEY}é", KEY * 500, f"{KEY}\x7f"])
def test_what_cannot_be_sent_is_refused_unshown(value, monkeypatch, tmp_path):
    """httpx quotes a header that it cannot send in its error."""
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", value)
    with pytest.raises(EngineError, match="POSTTRAIN_VLLM_KEY: should be one word") as refused:
        VLLMServerEngine(SPEC, ["http://127.0.0.1:9"], wait=0.1, patience=0.1)
    assert KEY not in str(refused.value)


@given(content=st.binary(max_size=50))
def test_any_bytes_in_a_key_file_are_a_key_or_one_line(content, tmp_path_factory):
    file = tmp_path_factory.mktemp("key") / "k"
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_X_FILE", str(file))
        told, found = "", None
        try:
            found = key.read("POSTTRAIN_X")
        except EngineError as error:
            told = str(error)
    assert len(told.splitlines()) == (found is None)
    assert found is None or found.encode() == content.rstrip(b"\r\n")


def test_a_key_file_that_is_not_there(monkeypatch):
    for name in ("/nowhere/k", "/", "a\0b"[:1] + "/b"):
        monkeypatch.setenv("POSTTRAIN_VLLM_KEY_FILE", name)
        with pytest.raises(EngineError, match="the key cannot be read"):
            key.read("POSTTRAIN_VLLM_KEY")


class Echo(BaseHTTPRequestHandler):
    """A server that sends the key back in whatever it says."""

    status = 200

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        self.server.seen.append(said)
        shape = self.server.shape
        body = {
            "models": {"data": [{"id": f"model of {said}"}]},
            "foreign": {"data": [{"id": f"posttrain-{said}-v1-000000000000", "parent": "m"}, {"id": "m"}]},
            "odd": said,
            "error": {"error": {"message": f"headers were {said}"}},
        }[shape]
        payload = json.dumps(body).encode() if shape != "odd" else said.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("shape", "status"),
    [("models", 200), ("foreign", 200), ("odd", 200), ("error", 400), ("error", 401), ("error", 404), ("error", 429), ("error", 500)],
)  # fmt: skip
def test_a_server_that_sends_the_key_back(shape, status, monkeypatch, caplog):
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.shape, server.status, server.seen = shape, status, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with caplog.at_level(logging.DEBUG, logger="rollouts"), pytest.raises(EngineError) as failed:
            VLLMServerEngine(SPEC, [f"http://127.0.0.1:{server.server_port}"], wait=0.2, patience=0.2, retries=0)
    finally:
        server.shutdown()
        server.server_close()
    assert server.seen
    assert set(server.seen) == {f"Bearer {KEY}"}
    assert KEY not in str(failed.value)
    assert KEY not in caplog.text
