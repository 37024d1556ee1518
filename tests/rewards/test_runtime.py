import asyncio
import functools
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewards.runtime import Fault, Guard, RewardFault


def score(guard, words, **columns):
    return guard.score([f"p{i // 2}" for i in range(len(words))], words, [[1]] * len(words), columns)


def faults(scores):
    return {f.row: f.kind for f in scores.faults}


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def gone_within(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def in_workers(misbehaving):
    """Two long-lived workers for a function named by its test."""
    made = []

    def make(function, **options):
        made.append(Guard(function, **{"processes": 2, "timeout": 20.0, **options}))
        return made[-1]

    yield make
    for guard in made:
        guard.close()


# ---- what comes back


class Torchlike:
    """A scalar such as torch's: no number of Python's, but with `ndim` and `item`."""

    ndim = 0

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


@pytest.mark.parametrize(
    ("result", "value"),
    [(1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (np.bool_(True), 1.0), (np.array(2.0), 2.0),
     (Fraction(1, 4), 0.25), (Torchlike(0.5), 0.5), (None, None)],
)  # fmt: skip
def test_numbers_and_not_judged(result, value):
    scores = score(Guard(lambda completions, **_: [result], name="f"), ["x"])
    assert scores.values == [value]
    assert scores.faults == []


@pytest.mark.parametrize(
    ("result", "kind"),
    [("1.0", "not_a_number"), (b"1", "not_a_number"), ([1.0], "not_a_number"), (1j, "not_a_number"), (object(), "not_a_number"),
     (np.array([1.0]), "not_a_number"), (np.str_("1"), "not_a_number"), (Torchlike("1"), "not_a_number"), (math.nan, "not_finite"),
     (-math.inf, "not_finite"), (10**400, "not_finite"), (np.float64("nan"), "not_finite"), (Torchlike(math.nan), "not_finite")],
)  # fmt: skip
def test_what_is_no_finite_number_faults_on_its_row_alone(result, kind):
    scores = score(Guard(lambda completions, **_: [1.0, result, 2], name="f"), ["a", "b", "c"])
    assert scores.values == [1.0, None, 2.0]
    assert faults(scores) == {1: kind}


def test_torch_results():
    torch = pytest.importorskip("torch")
    scores = score(
        Guard(lambda completions, **_: torch.tensor([1.0, math.nan], requires_grad=True), name="f"), ["a", "b"]
    )
    assert scores.values == [1.0, None]
    assert faults(scores) == {1: "not_finite"}


@pytest.mark.parametrize(
    "result", [None, 1.0, "12", b"12", {0: 1.0, 1: 2.0}, {1.0, 2.0}, np.array(1.0), [], [1.0], [1.0] * 3]
)
def test_a_wrong_number_of_results_leaves_no_number_anywhere(result):
    scores = score(Guard(lambda completions, **_: result if len(completions) == 2 else [1.0], name="f"), ["a", "b"])
    assert scores.values == [None, None]
    assert faults(scores) == {0: "length", 1: "length"}


def test_an_endless_generator_is_too_many():
    def endless(completions, **_):
        while True:
            yield 1.0

    assert faults(score(Guard(endless), ["a"])) == {0: "length"}


def test_a_generator_and_an_array_are_lists(misbehaving):
    assert score(Guard(lambda completions, **_: (float(c) for c in completions), name="f"), ["1", "2"]).values == [
        1.0,
        2.0,
    ]
    assert score(Guard(lambda completions, **_: np.array([1, 2]), name="f"), ["1", "2"]).values == [1.0, 2.0]


# ---- which row


def test_one_bad_row_of_fifty_faults_alone(misbehaving):
    words = [f"ok {i}" for i in range(50)]
    words[17] = "raise"
    scores = Guard(misbehaving.by_word).score(["p"] * 50, words, None, {"row_id": [f"r{i}" for i in range(50)]})
    assert scores.values == [None if i == 17 else float(i) for i in range(50)]
    (fault,) = scores.faults
    assert (fault.row, fault.row_id, fault.kind, fault.where) == (17, "r17", "exception", "rewards.0")
    assert "ValueError: no digits in it (misbehaving.py:" in fault.text
    assert "\n" not in fault.text


def test_a_dropped_row_is_found(misbehaving):
    for odd in ("drop", "double"):
        scores = score(Guard(misbehaving.by_word), ["ok 1", odd, "ok 2", odd])
        assert scores.values == [1.0, None, 2.0, None]
        assert faults(scores) == {1: "length", 3: "length"}


def test_system_exit_is_a_fault_and_ctrl_c_is_not(misbehaving):
    assert faults(score(Guard(misbehaving.exits), ["a"])) == {0: "exception"}

    def interrupted(completions, **_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(Guard(interrupted), ["a"])


def test_an_overrun_in_this_process_is_noticed_afterwards(misbehaving):
    scores = score(Guard(misbehaving.by_word, timeout=0.05), ["slow 0.1", "ok 1"])
    assert scores.values == [None, None]
    assert faults(scores) == {0: "timeout", 1: "timeout"}
    assert "processes" in scores.faults[0].text


def test_a_missing_column_is_one_fault_that_names_it():
    def needs_answer(completions, answer, **_):
        return [1.0]

    scores = score(Guard(needs_answer), ["a"], solution=["1"])
    assert scores.faults == [
        Fault(
            "rewards.0",
            None,
            None,
            "exception",
            "needs answer, which the data does not have (it has completion_ids, completions, prompts, solution)",
        )
    ]
    assert scores.values == [None]


def test_a_function_without_catch_all_gets_what_it_names():
    assert score(Guard(lambda completions: [len(c) for c in completions], name="f"), ["abc"], answer=["1"]).values == [
        3.0
    ]


def test_no_rows():
    assert Guard(lambda completions, **_: [], name="f").score([], [], [], {}).values == []


# ---- kinds of callables


def test_factories_functions_and_objects(misbehaving):
    for make in (
        misbehaving.by_word,
        misbehaving.ByWord,
        misbehaving.ByWord(1.0),
        misbehaving.ByWordAsync(),
        lambda: misbehaving.by_word,
        functools.partial(misbehaving.by_word),
        functools.partial(misbehaving.ByWord, 1.0),
        lambda **kwargs: [float(c.split()[1]) for c in kwargs["completions"]],
    ):
        assert score(Guard(make, name="f"), ["ok 1", "ok 2"]).values == [1.0, 2.0]


def test_bound_arguments_are_not_asked_of_the_data():
    def scaled(completions, *, factor, **columns):
        return [factor * float(c) for c in completions]

    bound = functools.update_wrapper(functools.partial(scaled, factor=2.0), scaled)
    for make in (bound, lambda: bound, lambda **extra: bound):
        assert score(Guard(make, name="f"), ["1", "2"]).values == [2.0, 4.0]
    (fault,) = score(Guard(scaled), ["1"]).faults
    assert fault.text.startswith("needs factor")


def test_decorated_functions():
    def decorate(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return function(*args, **kwargs)

        return inner

    assert score(Guard(decorate(lambda completions, **_: [1.0] * len(completions)), name="f"), ["a"]).values == [1.0]


def test_a_factory_that_fails_faults_the_batch(misbehaving):
    (fault,) = score(Guard(misbehaving.unbuildable), ["a"]).faults
    assert (fault.row, fault.kind) == (None, "exception")
    assert "no weights here" in fault.text


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": math.nan}, {"processes": -1}, {"on_error": "zero"}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match=r"rewards\.0: "):
        Guard(lambda completions: [], **options)


def test_async_functions(misbehaving):
    guard = Guard(misbehaving.by_word_async, timeout=0.5)
    began = time.monotonic()
    scores = score(guard, ["ok 1", "hang", "raise", "nan", "ok 2"])
    assert time.monotonic() - began < 10
    assert scores.values == [1.0, None, None, None, 2.0]
    assert faults(scores) == {1: "timeout", 2: "exception", 3: "not_finite"}
    assert score(guard, ["ok 3"]).values == [3.0]
    guard.close()


def test_async_within_a_running_loop(misbehaving):
    async def main():
        return score(Guard(misbehaving.by_word_async), ["ok 1"]).values

    assert asyncio.run(main()) == [1.0]


def test_async_that_blocks_its_loop_is_left_behind():
    release = threading.Event()

    async def blocks(completions, **_):
        if completions[0] == "block":
            release.wait(30)
        return [1.0] * len(completions)

    guard = Guard(blocks, timeout=0.2)
    assert faults(score(guard, ["block"])) == {0: "timeout"}
    assert score(guard, ["ok"]).values == [1.0]
    release.set()


def test_async_that_raises_its_own_timeout_error_raised_an_exception():
    async def times_out(completions, **_):
        raise TimeoutError("the judge did not answer")

    (fault,) = score(Guard(times_out), ["a"]).faults
    assert fault.kind == "exception"
    assert "did not answer" in fault.text


def test_logs_are_passed_on_once(misbehaving):
    extra, metric = [], []
    extras = {
        "log_extra": lambda *a: extra.append(a),
        "log_metric": lambda *a: metric.append(a),
        "trainer_state": "state",
    }
    words = ["ok 1", "raise", "ok 20"]
    scores = Guard(misbehaving.logging).score(["p"] * 3, words, None, {}, extras)
    assert scores.values == [1.0, None, 20.0]
    assert extra == [("seen", ["OK 1", None, "OK 20"])]
    assert metric == [("length", 4.5)]


def test_trainer_state_is_passed_in_this_process():
    def step(completions, trainer_state, **_):
        return [trainer_state["step"]]

    assert Guard(step).score(["p"], ["c"], None, {}, {"trainer_state": {"step": 7}}).values == [7.0]


def test_timing():
    guard = Guard(lambda completions, **_: [float(time.sleep(0.02 * len(c)) or 0) for c in completions], name="f")
    for i, words in enumerate((["a"], ["aaaa"], ["aa"])):
        guard.score(["p"], words, None, {"row_id": [f"r{i}"]})
    timing = guard.timing()
    assert timing["calls"] == 3
    assert 0 < timing["p50"] <= timing["p99"]
    assert timing["slowest"][0].rows == ("r1",)


# ---- worker processes


def test_workers_score_as_this_process_does(misbehaving, in_workers):
    words = ["ok 1", "raise", "nan", "inf", "text", "none", "bool", "drop", "drop", "huge", "list", "complex", "ok 2"]
    here, there = score(Guard(misbehaving.by_word), words), score(in_workers(misbehaving.by_word), words)
    assert here.values == there.values == [1.0, None, None, None, None, None, 1.0, None, None, None, None, None, 2.0]
    assert faults(here) == faults(there)
    assert 5 not in faults(there)  # not judged is no fault


def test_a_hang_is_killed_at_its_deadline_and_costs_its_row_alone(misbehaving, in_workers):
    guard = in_workers(misbehaving.by_word, processes=1, timeout=2.0)
    assert score(guard, ["ok 0"]).values == [0.0]
    (before,) = guard.pids()
    began = time.monotonic()
    scores = score(guard, ["ok 1", "hang", "ok 2", "ok 3"])
    assert time.monotonic() - began < 30
    assert scores.values == [1.0, None, 2.0, 3.0]
    assert faults(scores) == {1: "timeout"}
    assert gone_within(before)
    assert score(guard, ["ok 4"]).values == [4.0]


def test_a_computation_that_holds_the_interpreter_lock_is_killed(misbehaving, in_workers):
    guard = in_workers(misbehaving.by_word, processes=1, timeout=1.0)
    assert faults(score(guard, ["spin"])) == {0: "timeout"}


@pytest.mark.parametrize("end", ["exit", "segfault"])
def test_a_crash_costs_its_row_alone(misbehaving, in_workers, end):
    scores = score(in_workers(misbehaving.by_word, processes=1), ["ok 1", end, "ok 2"])
    assert scores.values == [1.0, None, 2.0]
    assert faults(scores) == {1: "crash"}
    assert ("exit code 7" if end == "exit" else "SIGSEGV") in scores.faults[0].text


def test_async_and_classes_in_workers(misbehaving, in_workers):
    scores = score(in_workers(misbehaving.by_word_async, timeout=2.0), ["ok 1", "hang", "ok 3", "ok 4"])
    assert scores.values == [1.0, None, 3.0, 4.0]
    assert score(in_workers(functools.partial(misbehaving.ByWord, 2.0)), ["ok 1", "ok 2"]).values == [2.0, 4.0]


def test_rows_are_spread_over_long_lived_workers(misbehaving, in_workers):
    guard = in_workers(misbehaving.pid)
    first, second = score(guard, ["a"] * 6).values, score(guard, ["a"] * 6).values
    assert len(set(first)) == 2
    assert set(first) == set(second) == set(map(float, guard.pids()))
    assert os.getpid() not in first


def test_rows_of_one_prompt_go_to_one_worker(misbehaving, in_workers):
    values = in_workers(misbehaving.pid).score(["p"] * 5 + ["q"] * 3, ["a"] * 8, None, {}).values
    assert len(set(values[:5])) == len(set(values[5:])) == 1


def test_logs_of_workers_arrive(misbehaving, in_workers):
    extra, metric = [], []
    extras = {
        "log_extra": lambda *a: extra.append(a),
        "log_metric": lambda *a: metric.append(a),
        "trainer_state": threading.Lock(),
    }
    scores = in_workers(misbehaving.logging).score(["p", "p", "q"], ["ok 1", "ok 2", "ok 300"], None, {}, extras)
    assert scores.values == [1.0, 2.0, 300.0]
    assert extra == [("seen", ["OK 1", "OK 2", "OK 300"])]
    assert metric == [("length", pytest.approx((4 + 4 + 6) / 3))]


def test_what_cannot_be_sent_is_one_clear_line(misbehaving, in_workers):
    (fault,) = score(in_workers(misbehaving.by_word), ["ok 1"], lock=[threading.Lock()]).faults
    assert fault.row is None
    assert 'column "lock" cannot be sent to worker processes' in fault.text
    with pytest.raises(ValueError, match=r"rewards.0: f cannot be sent to a worker process .* top level"):
        Guard(lambda completions: [], name="f", processes=1)
    (fault,) = score(in_workers(misbehaving.unbuildable), ["a"]).faults
    assert "no weights here" in fault.text


def test_from_many_threads(misbehaving, in_workers):
    guard = in_workers(misbehaving.by_word)
    found = {}

    def run(k):
        found[k] = score(guard, [f"ok {k}", "raise", f"ok {k + 100}"]).values

    threads = [threading.Thread(target=run, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [float(k), None, float(k + 100)] for k in range(6)}
    assert len(guard.pids()) <= 2


def test_closing_and_collecting_end_the_workers(misbehaving):
    guard = Guard(misbehaving.by_word, processes=2)
    score(guard, ["ok 1"] * 4)
    pids = guard.pids()
    guard.close()
    assert pids
    assert all(gone_within(p) for p in pids)
    assert score(guard, ["ok 1"]).values == [1.0]
    (pid,) = guard.pids()
    del guard
    gc.collect()
    assert gone_within(pid)


def test_children_of_a_killed_worker_die_with_it(misbehaving, in_workers, tmp_path):
    file = tmp_path / "pid"
    guard = in_workers(misbehaving.with_child, processes=1, timeout=2.0)
    assert faults(score(guard, ["a"], file=[str(file)])) == {0: "timeout"}
    assert gone_within(int(file.read_text()))


SCRIPT = """
import os, signal, sys
import misbehaving
from rewards.runtime import Guard

def of_main(completions, **_):
    return [42.0] * len(completions)

if __name__ == "__main__":
    guard = Guard(of_main, processes=1)
    assert guard.score(["p"], ["c"], None, {}).values == [42.0]
    other = Guard(misbehaving.by_word, processes=1)
    assert other.score(["p"], ["ok 1"], None, {}).values == [1.0]
    child = os.fork()
    if child == 0:
        good = other.score(["p"], ["ok 2"], None, {}).values == [2.0]
        other.close()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert other.score(["p"], ["ok 3"], None, {}).values == [3.0]
    print(*guard.pids(), *other.pids(), flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["return", "kill"])
def test_no_worker_survives_its_process(tmp_path, how):
    """From a script of the user's own, with a function defined in it, and across a fork."""
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), how],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == (0 if how == "return" else -9), done.stderr
    pids = [int(p) for p in done.stdout.split()]
    assert len(pids) == 2
    assert all(gone_within(p) for p in pids)


# ---- never a number for a failure

ODD = ["raise", "nan", "inf", "text", "bytes", "drop", "double", "huge", "list", "complex"]
WORDS = st.one_of(st.sampled_from(ODD), st.integers(-5, 5).map(lambda n: f"ok {n}"))


def check(guard, words):
    scores = score(guard, words)
    assert len(scores.values) == len(words)
    rows = faults(scores)
    for i, word in enumerate(words):
        if word.startswith("ok"):
            assert scores.values[i] in (float(word[3:]), None)
            assert (scores.values[i] is None) == (i in rows)
        else:
            assert scores.values[i] is None
            assert i in rows
    assert all(i not in rows for i, word in enumerate(words) if word.startswith("ok"))  # good rows keep their numbers


def miscounts_unseen(words):
    """As many results as rows, though one row gave none and another two: no guard of a batch function can see that."""
    return words.count("drop") == words.count("double") > 0 and "raise" not in words


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS, min_size=1, max_size=8).filter(lambda w: not miscounts_unseen(w)))
def test_a_failure_never_gives_a_number(misbehaving, words):
    check(Guard(misbehaving.by_word), words)
    check(Guard(misbehaving.by_word_async), words)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.one_of(WORDS, st.sampled_from(["hang", "exit"])), min_size=1, max_size=5).filter(
        lambda w: not miscounts_unseen(w)
    )
)
def test_a_failure_never_gives_a_number_in_workers(misbehaving, words):
    guard = Guard(misbehaving.by_word, processes=1, timeout=1.5)
    try:
        scores = score(guard, words)
        for i, word in enumerate(words):
            assert word.startswith("ok") or (scores.values[i] is None and i in faults(scores))
    finally:
        guard.close()


# ---- bare TRL


def test_called_as_trl_calls_it(misbehaving):
    guard = Guard(misbehaving.by_word, name="words")
    arguments = {"prompts": ["p"] * 2, "completion_ids": [[1]] * 2, "answer": ["1", "2"], "trainer_state": None,
                 "log_extra": print, "log_metric": print}  # fmt: skip
    assert guard.__name__ == "words"
    assert guard(completions=["ok 1", "none"], **arguments) == [1.0, None]
    with pytest.raises(
        RewardFault, match=r"^reward words: rewards.0 row 1: exception: ValueError: no digits in it .*$"
    ) as error:
        guard(completions=["ok 1", "raise"], **arguments)
    assert error.value.fault.row == 1
    assert Guard(misbehaving.by_word, on_error="skip_row")(completions=["ok 1", "raise"], **arguments) == [1.0, None]


def test_pickles_and_works_again(misbehaving):
    guard = Guard(misbehaving.by_word, processes=1)
    again = pickle.loads(pickle.dumps(guard))
    assert score(again, ["ok 1"]).values == [1.0]
    again.close()


@pytest.mark.slow
def test_one_step_of_trl_grpo(misbehaving, tmp_path):
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = {c: i for i, c in enumerate(["<pad>", "<eos>", *"abcdefgh"])}
    raw = Tokenizer(models.WordLevel(letters, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(letters), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=2, eos_token_id=1, pad_token_id=0)  # fmt: skip
    seen = []

    def length(completions, answer, **columns):
        seen.append((completions, answer))
        return [float(len(c)) for c in completions]

    arguments = trl.GRPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=6,
                               max_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, logging_steps=1)  # fmt: skip
    trainer = trl.GRPOTrainer(
        Qwen2ForCausalLM(config),
        reward_funcs=[Guard(length, name="length"), Guard(misbehaving.ByWord, name="words", on_error="skip_row")],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["ab", "cd"] * 4, "answer": ["1", "2"] * 4}),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "rewards/length/mean" in entry)
    (completions, answer), *_ = seen
    assert len(set(answer)) == 1
    assert logged["rewards/length/mean"] == pytest.approx(sum(map(len, completions)) / 4)
    assert logged["rewards/words/mean"] is None or math.isnan(
        logged["rewards/words/mean"]
    )  # every row of the second reward was left out


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="what a process holds is read from /proc")
def test_a_leak_costs_no_row(misbehaving):
    guard = Guard(misbehaving.leaking, processes=1, memory=0.3, timeout=60.0)
    try:
        made = [guard.score(None, ["ok 1", "ok 2"], None, {}) for _ in range(30)]  # 600 MiB in all
        assert {tuple(s.values) for s in made} == {(1.0, 2.0)}
        assert not any(s.faults for s in made)
        assert guard._workers.replaced >= 1
    finally:
        guard.close()
    with pytest.raises(ValueError, match="memory must be a positive number of GiB, not 0"):
        Guard(misbehaving.leaking, processes=1, memory=0)
