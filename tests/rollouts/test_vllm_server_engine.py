"""Real vLLM servers over HTTP: agreement with transformers + PEFT, adapters by version, servers that die or hang."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rollouts.engines.vllm_server import VLLMServerEngine
from rollouts.records import Engine, EngineError, Policy, Sampling

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = pytest.mark.vllm

KEY = "only-for-tests"
SAMPLING = Sampling(temperature=0.8, max_tokens=40)


def ask(url: str, path: str, body: dict | None = None, key: str = KEY) -> tuple[int, bytes]:
    request = urllib.request.Request(
        url + path,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def loaded(url: str) -> set[str]:
    """Names of the adapters that a server serves."""
    return {m["id"] for m in json.loads(ask(url, "/v1/models")[1])["data"] if m["parent"]}


def wrong(tiny, prompts, completions, adapter, temperature=1.0) -> float:
    return max(
        np.abs(np.array(c.logprobs) - tiny.logprobs(p, c.ids, adapter, temperature)).max()
        for p, c in zip(prompts, completions, strict=True)
    )


@pytest.fixture
def engine(tiny, servers) -> Iterator[VLLMServerEngine]:
    made = VLLMServerEngine(tiny.spec(lora_rank=8, run_id="test"), [s.url for s in servers])
    yield made
    made.close()


@pytest.fixture
def make(tiny):
    """Engines with short tempers, closed at the end of the test."""
    made = []

    def build(urls, spec=None, **options) -> VLLMServerEngine:
        known = {"wait": 0.5, "patience": 2.0, "health_interval": 0.5}
        made.append(VLLMServerEngine(spec or tiny.spec(lora_rank=8, run_id="test"), urls, **{**known, **options}))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def test_sampler_and_trainer_agree(tiny, adapters, engine):
    assert isinstance(engine, Engine)
    prompts = tiny.prompts([3, 20, 100, 57] * 6)
    for version, adapter in ((1, adapters(1)), (2, None), (3, adapters(2))):
        engine.sync(Policy(version, adapter_dir=adapter))
        made = engine.generate(prompts, SAMPLING, range(24))
        assert {c.version for c in made} == {version}
        difference = wrong(tiny, prompts, made, adapter, 0.8)
        print(f"largest difference of a log-prob over HTTP, adapter {adapter}: {difference:.2e}")
        assert difference < 1e-4
        if adapter is not None:
            assert wrong(tiny, prompts, made, None, 0.8) > 0.1
    assert {c.finish for c in made} == {"stop", "length"}
    assert {c.ids[-1] for c in made if c.finish == "stop"} <= set(tiny.eos_ids)


def test_truncated_distribution_and_greedy_as_in_process(tiny, adapters, engine):
    from rollouts.engines.transformers import TransformersEngine

    policy = Policy(5, adapter_dir=adapters(1))
    engine.sync(policy)
    reference = TransformersEngine(tiny.spec())
    reference.sync(policy)
    prompts = tiny.prompts([30, 7])
    greedy = Sampling(temperature=0.0, max_tokens=20, repetition_penalty=1.3)
    for ours, theirs in zip(
        engine.generate(prompts, greedy, [0, 1]), reference.generate(prompts, greedy, [0, 1]), strict=True
    ):
        assert (ours.ids, ours.finish) == (theirs.ids, theirs.finish)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
    cut = Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.02, max_tokens=1)
    first, second = (
        {c.ids[0]: c.logprobs[0] for c in e.generate([prompts[0]] * 150, cut, range(150))} for e in (engine, reference)
    )
    common = first.keys() & second.keys()
    assert len(common) >= 5
    for token in common:
        assert first[token] == pytest.approx(second[token], abs=1e-4)


def test_seeds_and_no_dependence_on_the_server(tiny, adapters, servers, make):
    both = make([s.url for s in servers])
    both.sync(Policy(6, adapter_dir=adapters(1)))
    prompts = tiny.prompts([12]) * 16
    seeds = [*range(8), *range(8)]
    made = [c.ids for c in both.generate(prompts, Sampling(max_tokens=20), seeds)]
    assert made[:8] == made[8:]
    assert len(set(map(tuple, made))) == 8
    one = make([servers[1].url])
    one.sync(Policy(6, adapter_dir=adapters(1)))
    assert [c.ids for c in one.generate(prompts, Sampling(max_tokens=20), seeds)] == made


def test_stop_strings_and_lengths(tiny, engine):
    prompts = tiny.prompts([10] * 40, seed=6)
    free = engine.generate(prompts, Sampling(max_tokens=25), range(40))
    stop = next(t for c in free for t in [tiny.tokenizer.decode(c.ids[5:6])] if len(t) == 1 and t.isascii())
    made = engine.generate(prompts, Sampling(max_tokens=25, stop=(stop,)), range(40))
    cut = [c for c, f in zip(made, free, strict=True) if stop in tiny.tokenizer.decode(f.ids)]
    assert cut
    for completion in cut:
        assert completion.finish == "stop"
        assert stop in tiny.tokenizer.decode(completion.ids)
        assert stop not in tiny.tokenizer.decode(completion.ids[:-1])
    (end,) = engine.generate(tiny.prompts([510], seed=7), Sampling(max_tokens=25), [0])
    assert len(end.ids) <= 2
    with pytest.raises(EngineError, match="no room"):
        engine.generate(tiny.prompts([512], seed=7), Sampling(max_tokens=25), [0])
    with pytest.raises(EngineError, match="temperature must be in") as caught:
        engine.generate(tiny.prompts([5]), Sampling(temperature=3.0), [0])
    assert "\n" not in str(caught.value)


def test_it_says_what_came_from_the_cache(tiny, servers, make):
    engine = make([servers[0].url])
    (prompt,) = tiny.prompts([300], seed=77)
    first, second = (engine.generate([prompt], Sampling(max_tokens=2), [i])[0] for i in (1, 2))
    assert (first.cached, second.cached > 200, second.cached <= 300) == (0, True, True)


def test_versions_come_and_go_by_name(tiny, adapters, servers, make):
    urls = [s.url for s in servers]
    publisher, follower = make(urls), make(urls)
    (long,) = tiny.prompts([400], seed=2)
    for version, adapter in ((1, adapters(1)), (2, adapters(2)), (3, adapters(1))):
        publisher.sync(Policy(version, adapter_dir=adapter))
        follower.sync(Policy(version, adapter_dir=adapter), publish=False)
        for url in urls:
            (name,) = loaded(url)  # the one before it is gone
            assert name.startswith(f"posttrain-test-v{version}-")
        for engine in (publisher, follower):
            made = engine.generate([long] * 4, Sampling(temperature=0.0, max_tokens=8), range(4))
            assert {c.version for c in made} == {version}
            assert wrong(tiny, [long] * 4, made, adapter) < 1e-4
    follower.close()
    assert all(loaded(url) for url in urls)
    publisher.close()
    assert not any(loaded(url) for url in urls)


def test_a_new_run_inherits_nothing(tiny, adapters, servers, make):
    urls = [s.url for s in servers]
    old = make(urls[:1], tiny.spec(lora_rank=8, run_id="yesterday"))
    old.sync(Policy(40, adapter_dir=adapters(1)))
    with pytest.raises(EngineError, match='another run, "yesterday"') as caught:
        make(urls)
    assert "\n" not in str(caught.value)
    assert "takeover" in str(caught.value)
    new = make(urls, takeover=True)
    assert not any(loaded(url) for url in urls)
    made = new.generate(tiny.prompts([20] * 4), SAMPLING, range(4))
    assert wrong(tiny, tiny.prompts([20] * 4), made, None, 0.8) < 1e-4
    # the same run again, with a version it has trained anew: the left-over of its first start goes
    new.sync(Policy(1, adapter_dir=adapters(1)))
    again = make(urls)
    again.sync(Policy(1, adapter_dir=adapters(2)))
    assert wrong(tiny, tiny.prompts([20] * 4), again.generate(tiny.prompts([20] * 4), SAMPLING, range(4)), adapters(2), 0.8) < 1e-4  # fmt: skip
    assert [len(loaded(url)) for url in urls] == [1, 1]


def test_works_inside_a_running_event_loop(tiny, servers, make):
    async def main():
        engine = make([servers[0].url])
        return engine.generate(tiny.prompts([5] * 3), SAMPLING, range(3))

    assert len(asyncio.run(main())) == 3


def test_mistakes_are_one_line(tiny, adapters, servers, make, monkeypatch, tmp_path):
    url = servers[0].url
    engine = make([url])
    cases = [
        (lambda: make([]), "urls is empty"),
        (lambda: make(["127.0.0.1:8000"]), "no URL"),
        (lambda: make([url, url + "/v1/"]), "given twice"),
        (lambda: make([url], concurrency=0), "concurrency"),
        (lambda: make(["http://127.0.0.1:9"]), "no server is left"),
        (lambda: make([url], tiny.spec(model="Qwen/Qwen2.5-0.5B")), "but the policy's base model is Qwen"),
        (lambda: engine.sync(Policy(1, state_dir="x")), "LoRA `adapter`"),
        (lambda: make([url], path_map={adapters(1): "/nowhere"}).sync(Policy(1, adapter_dir=adapters(1))), "path_map"),
    ]
    for do, text in cases:
        with pytest.raises(EngineError, match=text) as caught:
            do()
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", "wrong-key-0123")
    with pytest.raises(EngineError, match="POSTTRAIN_VLLM_KEY") as caught:
        make([url])
    assert "wrong-key-0123" not in str(caught.value)
    monkeypatch.delenv("POSTTRAIN_VLLM_KEY")
    monkeypatch.setenv("OTHER", KEY)
    make([url], api_key_env="OTHER")


def test_the_adapter_folder_as_the_servers_see_it(tiny, adapters, servers, make, tmp_path):
    """This process knows the folder by a link that the servers are not told of."""
    here = tmp_path / "here"
    here.symlink_to(adapters(1))
    engine = make([servers[0].url], path_map={str(tmp_path): "/nowhere", str(here): adapters(1)})
    engine.sync(Policy(1, adapter_dir=str(here)))
    prompts = tiny.prompts([20] * 2)
    assert wrong(tiny, prompts, engine.generate(prompts, SAMPLING, range(2)), adapters(1), 0.8) < 1e-4
    cards = json.loads(ask(servers[0].url, "/v1/models")[1])["data"]
    assert next(c["root"] for c in cards if c["parent"]) == adapters(1)


class Between(ThreadingHTTPServer):
    """In front of a real server: passes everything on, except where `fate(path, body, n)` has an answer of its own."""

    daemon_threads = True

    def __init__(self, behind: str, fate):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.fate, self.seen = behind, fate, Counter()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """Clients that gave up are what some of the tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Between

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parsed = json.loads(body) if body else {}
        with self.server.lock:
            self.server.seen[self.path] += 1
            n = self.server.seen[self.path]
        status, answer = self.server.fate(self.path, parsed, n) or (0, b"")
        if not status:
            status, answer = ask(self.server.behind, self.path, parsed if self.command == "POST" else None)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = _pass  # noqa: N815

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        (500, b'{"error": {"message": "EngineDeadError"}}'),
        (200, b"<html>not json</html>"),
        (200, b'{"choices": []}'),
        (200, b'{"model": "x", "choices": [{"index": 0, "text": "", "finish_reason": "length"}]}'),
        (429, b'{"error": {"message": "slow down"}}'),
    ],
    ids=["500", "html", "empty", "no ids", "429"],
)
def test_errors_and_garbage_are_asked_again(tiny, servers, make, answer):
    def fate(path, body, n):
        return answer if path == "/v1/completions" and n in (2, 3) else None  # the first is the probe

    between = Between(servers[0].url, fate)
    prompts = tiny.prompts([10] * 6)
    expected = make([servers[0].url]).generate(prompts, SAMPLING, range(6))
    engine = make([between.url])
    assert [c.ids for c in engine.generate(prompts, SAMPLING, range(6))] == [c.ids for c in expected]
    assert engine.pool.counts["asked_again"] >= 2
    between.shutdown()


def test_a_restarted_server_gets_the_adapter_before_it_is_asked_again(tiny, adapters, servers, make):
    """After its outage the server has forgotten the adapter, as after a restart."""
    real = servers[0].url

    def fate(path, body, n):
        if path == "/v1/completions" and n == 4:
            for name in loaded(real):
                ask(real, "/v1/unload_lora_adapter", {"lora_name": name})
        return None

    between = Between(real, fate)
    engine = make([between.url], concurrency=2)
    engine.sync(Policy(9, adapter_dir=adapters(2)))
    prompts = tiny.prompts([10] * 12)
    made = engine.generate(prompts, SAMPLING, range(12))
    assert wrong(tiny, prompts, made, adapters(2), 0.8) < 1e-4
    assert engine.pool.counts["taken_back"] >= 1
    assert between.seen["/v1/load_lora_adapter"] >= 2
    between.shutdown()


def test_a_server_that_serves_nothing_any_more_does_not_end_the_run(tiny, adapters, servers, make):
    """It says 200 and an empty list, as a gateway might; at the start that would be a mistake in the recipe."""
    broken: list[bool] = []

    def fate(path, body, n):
        return (200, b'{"data": []}') if path == "/v1/models" and broken else None

    first, second = (Between(servers[0].url, fate), Between(servers[0].url, lambda *_: None))
    engine = make([first.url, second.url], patience=5.0)
    prompts = tiny.prompts([10] * 4)
    for version in (1, 2, 3):
        engine.sync(Policy(version, adapter_dir=adapters(version % 2)))
        made = engine.generate(prompts, SAMPLING, range(4))
        assert wrong(tiny, prompts, made, adapters(version % 2), 0.8) < 1e-4
        broken[:] = [True] if version == 1 else broken
    assert [s.alive for s in engine.pool.servers] == [False, True]
    assert "serves nothing" in engine.pool.servers[0].why
    broken.clear()
    engine.sync(Policy(4, adapter_dir=adapters(0)))
    assert [s.alive for s in engine.pool.servers] == [True, True]
    broken.append(True)
    with pytest.raises(EngineError, match="serves nothing"):
        make([first.url, second.url], spec=tiny.spec(lora_rank=8, run_id="other"), takeover=True)
    first.shutdown()
    second.shutdown()


def test_raw_log_probs_are_refused(tiny, servers, make):
    """A server without --logprobs-mode processed_logprobs reports log-probs before temperature and top-k."""

    def fate(path, body, n):
        if path != "/v1/completions":
            return None
        # the raw ones are those of an untruncated request at temperature 1
        status, answer = ask(servers[0].url, path, body)
        parsed = json.loads(answer)
        ids = parsed["choices"][0]["token_ids"]
        parsed["choices"][0]["logprobs"]["token_logprobs"] = tiny.logprobs(body["prompt"], ids)
        return status, json.dumps(parsed).encode()

    between = Between(servers[0].url, fate)
    with pytest.raises(EngineError, match="processed_logprobs"):
        make([between.url])
    between.shutdown()


def in_background(work) -> tuple[threading.Thread, dict]:
    out: dict = {}

    def target():
        try:
            out["value"] = work()
        except Exception as error:
            out["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, out


def busy(engine: VLLMServerEngine, server: int, seconds: float = 60.0) -> None:
    """Wait until `server` is at work."""
    until = time.monotonic() + seconds
    while not engine.pool.servers[server].in_flight:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.5)
    assert engine.pool.servers[server].in_flight


def same(ours, theirs) -> None:
    """Equal completions. One in twenty may turn off where a draw fell on a border: batches differ in rounding."""
    assert len(ours) == len(theirs)
    different = sum(a.ids != b.ids for a, b in zip(ours, theirs, strict=True))
    assert different <= len(ours) // 20


@pytest.fixture
def long_work(tiny):
    """No EOS: every completion runs its full length, so that a server can be caught at it."""
    prompts = tiny.prompts([16] * 20, seed=12)
    return prompts, Sampling(max_tokens=300), range(20), tiny.spec(lora_rank=8, run_id="test", eos_ids=())


def test_a_server_that_hangs_is_left_and_taken_back(tiny, adapters, servers, make, long_work):
    prompts, sampling, seeds, spec = long_work
    policy = Policy(1, adapter_dir=adapters(1))
    one = make([servers[0].url], spec)
    one.sync(policy)
    expected = one.generate(prompts, sampling, seeds)
    engine = make([s.url for s in servers], spec, timeout=120.0)
    engine.pool.ping_timeout = 0.5
    engine.sync(policy)
    thread, out = in_background(lambda: engine.generate(prompts, sampling, seeds))
    busy(engine, 1)
    servers[1].signal(signal.SIGSTOP)
    try:
        thread.join(100)
        assert not thread.is_alive()
        assert "error" not in out
        same(out["value"], expected)
        assert engine.pool.counts["taken_out"] == 1
        assert engine.pool.counts["asked_again"] >= 1
        assert wrong(tiny, prompts, out["value"], adapters(1)) < 1e-4
    finally:
        servers[1].signal(signal.SIGCONT)
    until = time.monotonic() + 30
    while len(engine.pool.alive) < 2 and time.monotonic() < until:
        engine.sync(Policy(2, adapter_dir=adapters(2)))
    made = engine.generate(prompts[:8], Sampling(max_tokens=20), range(8))
    assert engine.pool.counts["taken_back"] == 1
    assert wrong(tiny, prompts[:8], made, adapters(2)) < 1e-4
    assert all(len(loaded(s.url)) >= 1 for s in servers)


def test_a_request_that_hangs_past_its_time_is_asked_elsewhere(tiny, servers, make):
    """Only the completions hang; the server's health check goes on saying that all is well."""
    hold = threading.Event()

    def fate(path, body, n):
        if path == "/v1/completions" and n > 1:
            hold.wait(60)
        return None

    between = Between(servers[0].url, fate)
    prompts = tiny.prompts([10] * 8)
    engine = make([between.url, servers[1].url], timeout=3.0)
    expected = make([servers[1].url]).generate(prompts, SAMPLING, range(8))
    made = engine.generate(prompts, SAMPLING, range(8))
    assert [c.ids for c in made] == [c.ids for c in expected]
    assert "no answer within 3 s" in engine.pool.servers[0].why or engine.pool.counts["taken_back"]
    hold.set()
    between.shutdown()


def test_one_of_two_is_killed_at_work_then_the_other(tiny, adapters, servers, make, long_work):
    prompts, sampling, seeds, spec = long_work
    policy = Policy(1, adapter_dir=adapters(1))
    one = make([servers[0].url], spec)
    one.sync(policy)
    expected = one.generate(prompts, sampling, seeds)
    engine = make([s.url for s in servers], spec)
    engine.sync(policy)

    thread, out = in_background(lambda: engine.generate(prompts, sampling, seeds))
    busy(engine, 1)
    servers[1].kill()
    thread.join(120)
    assert not thread.is_alive()
    assert "error" not in out
    # every request answered once, in order, as one server alone answers it
    same(out["value"], expected)
    assert wrong(tiny, prompts, out["value"], adapters(1)) < 1e-4
    assert engine.pool.counts["taken_out"] == 1
    assert engine.pool.counts["asked_again"] >= 1

    # the run goes on with the next version on the server that is left
    engine.sync(Policy(2, adapter_dir=adapters(2)))
    made = engine.generate(prompts[:4], Sampling(max_tokens=10), range(4))
    assert wrong(tiny, prompts[:4], made, adapters(2)) < 1e-4

    thread, out = in_background(lambda: engine.generate(prompts, sampling, seeds))
    busy(engine, 0)
    servers[0].kill()
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(out["error"], EngineError)
    text = str(out["error"])
    assert "no server is left" in text
    assert "\n" not in text
    assert all(s.url in text for s in servers)
    with pytest.raises(EngineError, match="no server is left"):
        engine.sync(Policy(3, adapter_dir=adapters(1)))
