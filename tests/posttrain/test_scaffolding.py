"""Room for scaffolds: what `posttrain plan` says of them, and what is refused before anything is loaded."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from posttrain import assemble, preview
from posttrain.errors import Mistake
from posttrain.plan import memory_of
from posttrain.recipe import load
from posttrain.recipe.reading import read
from posttrain.scaffolding import Widest, ever_scaffolded, prompt_of_loss, widest
from rollouts.prompts import encode
from rollouts.strategies.scaffold import Scaffold
from rollouts.strategies.single import SingleTurn

LONG = {"criterion": "names the dose and says why", "points": 5}
SHORT = {"criterion": "is kind", "points": -2}
ROWS = [
    {"row_id": "a", "prompt": [{"role": "user", "content": "how much?"}], "rubric": [LONG, SHORT]},
    {"row_id": "b", "prompt": [{"role": "user", "content": "how much of it, and when, and why?"}], "rubric": [SHORT]},
    {"row_id": "c", "prompt": [{"role": "user", "content": "hm"}], "rubric": []},
]


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def of(strategy, tokenizer, rows=ROWS, room=4000, max_tokens=100):
    return widest(strategy, rows, tokenizer, room=room, max_tokens=max_tokens, template_args={})


def lengths(strategy, tokenizer):
    """By rendering every row with all of its criteria."""
    from rollouts.records import Row

    found = []
    for row in ROWS:
        record = Row(row["row_id"], row["prompt"], {"rubric": row["rubric"]})
        full = encode(tokenizer, strategy.prompt(record, range(len(row["rubric"]))))
        found.append((len(full), len(encode(tokenizer, row["prompt"]))))
    return found


def test_the_longest_over_the_rows(tokenizer):
    found = of(Scaffold(), tokenizer)
    both = lengths(Scaffold(), tokenizer)
    assert found == Widest(max(f - p for f, p in both), "a", max(f for f, _ in both))
    assert of(SingleTurn(), tokenizer) == Widest()


def test_a_bound_of_the_scaffold_counts(tokenizer):
    whole = of(Scaffold(), tokenizer).scaffold
    bounded = of(Scaffold(max_tokens=whole - 1), tokenizer)
    assert bounded.scaffold == whole - 1
    assert bounded.prompt == whole - 1 + lengths(Scaffold(), tokenizer)[0][1]


def test_a_bound_that_no_scaffold_keeps_is_refused_as_nothing_would_ever_be_shown(tokenizer):
    one = min(f - p for f, p in lengths(Scaffold(), tokenizer) if f > p)  # row b has one criterion alone
    assert of(Scaffold(max_tokens=one), tokenizer).scaffold == one
    with pytest.raises(
        Mistake, match=rf"no row would ever be shown anything: .*with.max_tokens {one - 1} has room for no"
    ):
        of(Scaffold(max_tokens=one - 1), tokenizer, [ROWS[1]])
    with pytest.raises(
        Mistake, match="no row would ever be shown anything: column rubric is empty in all; name another"
    ):
        of(Scaffold(), tokenizer, [ROWS[2]])
    assert of(Scaffold(), tokenizer, []) == Widest()


def test_what_does_not_fit_is_refused_with_the_bound_that_fits(tokenizer):
    full, prompt = max(lengths(Scaffold(), tokenizer))
    with pytest.raises(
        Mistake, match=rf"prompt {prompt} \+ scaffold {full - prompt} \+ .* 100 = {full + 100} tokens"
    ) as e:
        of(Scaffold(), tokenizer, room=full + 99)
    assert "\n" not in str(e.value)
    most = int(str(e.value).split("with.max_tokens: ")[1].split()[0])
    assert of(Scaffold(max_tokens=most), tokenizer, room=full + 99).prompt <= full - 1
    assert of(Scaffold(), tokenizer, room=full + 100).prompt == full


def test_no_bound_is_proposed_that_would_show_nothing(tokenizer):
    one = min(f - p for f, p in lengths(Scaffold(), tokenizer) if f > p)
    with pytest.raises(Mistake, match=r"is more than the model's length \d+; lower rollouts\.sampling\.max_tokens"):
        of(Scaffold(), tokenizer, room=one, max_tokens=10)


def test_what_goes_wrong_in_a_users_own_words_is_named(tokenizer):
    class Mine(Scaffold):
        def text(self, row, shown):
            return row.columns["marks"]

    with pytest.raises(Mistake, match=r"^rollouts\.strategy: row a: KeyError: 'marks'$"):
        of(Mine(), tokenizer)


def test_a_longer_row_without_a_scaffold_hides_no_other(tokenizer):
    full, _ = max(lengths(Scaffold(), tokenizer))
    plain = {"row_id": "z", "prompt": [{"role": "user", "content": "why? " * full}], "rubric": []}
    with pytest.raises(Mistake, match=rf"row a: .* = {full + 100} tokens"):
        of(Scaffold(), tokenizer, [*ROWS, plain], room=full + 99)


def test_a_row_without_the_column_is_named(tokenizer):
    with pytest.raises(Mistake, match=r"rollouts\.strategy: row a: there is no column marks to take criteria from"):
        of(Scaffold("marks"), tokenizer)


def test_text_on_which_a_template_was_run_is_told_before_a_model_is_loaded(tokenizer):
    tokenizer.bos_token = "<|user|>"
    given = [{"row_id": "t", "prompt": "<|user|>how much?", "rubric": [LONG]}]
    with pytest.raises(
        Mistake, match=r"^rollouts\.strategy: row t: a template was run on its text already .*give messages"
    ):
        of(Scaffold(), tokenizer, given)
    assert of(Scaffold(), tokenizer, [{**given[0], "rubric": []}, ROWS[0]]).scaffold_row == "a"


REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
)
DROPPING = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "line"),
    [(REFUSING, "row a: System role not supported; "), (DROPPING, "row a: the chat template drops system")],
)
def test_a_template_without_system_turns_is_told_with_the_other_place(tokenizer, template, line):
    tokenizer.chat_template = template
    with pytest.raises(Mistake, match=rf"^rollouts\.strategy: {line}.*set rollouts\.strategy\.with\.place: user$"):
        of(Scaffold(), tokenizer)
    assert of(Scaffold(place="user"), tokenizer).scaffold > 0


def recipe(tiny, tmp_path, rows=ROWS, strategy=None, **more):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": tiny, **more.pop("model", {})},
        "adapter": {"r": 4, "lora_alpha": 8},
        "data": {"train": {"path": str(path)}},
        "rewards": [{"use": "rewards.math:correct"}],
        "rollouts": {"sampling": {"max_tokens": 12}, "strategy": strategy or "scaffold", **more.pop("rollouts", {})},
        "trainer": {"algorithm": "grpo", "args": {"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 2, "bf16": False}},
        "run": {"name": "t", "directory": str(tmp_path)},
    }  # fmt: skip


def test_the_plan_counts_them(tiny, tmp_path, tokenizer):
    rows = [{**row, "answer": "1"} for row in ROWS]
    out = io.StringIO()
    preview.show(read(recipe(tiny, tmp_path, rows), []), console=Console(file=out, width=200))
    found = of(Scaffold(), tokenizer)
    told = " ".join(out.getvalue().split())
    assert f"longest scaffold, tokens {found.scaffold:,} of row a longest prompt with it {found.prompt:,}" in told
    out = io.StringIO()
    preview.show(read(recipe(tiny, tmp_path, rows, "single"), []), console=Console(file=out, width=200))
    assert "rows that ever meet one, about" in told
    assert "longest scaffold" not in out.getvalue()


def test_the_plan_of_a_scaffold_in_the_loss_trains_on_it(tiny, tmp_path):
    def told(in_loss):
        out = io.StringIO()
        given = {"use": "scaffold", "with": {"in_loss": in_loss}}
        rows = [{**row, "answer": "1"} for row in ROWS]
        preview.show(read(recipe(tiny, tmp_path, rows, given), []), console=Console(file=out, width=200))
        text = " ".join(out.getvalue().split())
        return "engine and loss" in text, text.split("activations ")[1].split(" cache")[0]

    (without, less), (within, more) = told(False), told(True)
    assert (without, within) == (False, True)
    assert less != more


def test_the_longest_prompt_of_the_loss():
    assert prompt_of_loss(Scaffold(), 30, 72) == 30
    assert prompt_of_loss(Scaffold(in_loss=True), 30, 72) == 72
    assert prompt_of_loss(SingleTurn(), 30, 0) == 30


def test_a_short_run_scaffolds_few_rows():
    assert ever_scaffolded(Scaffold(), 1.0) == 0.2
    assert ever_scaffolded(Scaffold(inter="step", t0=0.3), 5.0) == 1.0
    assert ever_scaffolded(Scaffold(inter="linear"), 1.0) is None
    assert ever_scaffolded(SingleTurn(), 1.0) is None


def test_the_engines_cache_holds_the_scaffold_and_the_forward_pass_does_not(tiny, tmp_path):
    from posttrain import models
    from posttrain.recipe.homes import trl_arguments
    from posttrain.rundir import RunDir

    made = load(recipe(tiny, tmp_path))
    arguments = trl_arguments(made, RunDir(tmp_path))
    config = models.load_config(made.model)
    without = memory_of(made, config, arguments, 1, prompt_tokens=30)
    with_it = memory_of(made, config, arguments, 1, prompt_tokens=30, seen_tokens=30 + 42)
    assert with_it.cache == without.cache * (30 + 42 + 12) // (30 + 12)
    assert (with_it.activations, with_it.head) == (without.activations, without.head)


def test_options_that_contradict_each_other_are_one_line(tiny, tmp_path):
    made = load(recipe(tiny, tmp_path, strategy={"use": "scaffold", "with": {"intra": "binary"}}))
    with pytest.raises(
        Mistake, match=r"^rollouts\.strategy: scaffold: m is None; it should be given with intra: binary"
    ):
        assemble.strategy(made)


def test_more_shown_samples_than_a_group_has_are_one_line(tiny, tmp_path):
    def of(m):
        return load(recipe(tiny, tmp_path, strategy={"use": "scaffold", "with": {"intra": "binary", "m": m}}))

    assert assemble.strategy(of(2)).m == 2
    with pytest.raises(
        Mistake, match=r"^rollouts\.strategy: scaffold: m is 3; it should be at most the 2 samples of a group"
    ):
        assemble.strategy(of(3))


@pytest.mark.parametrize(
    ("strategy", "mode", "fine"),
    [
        ("scaffold", "auto", True),
        ({"use": "scaffold", "with": {"alpha": 20.0}}, "auto", True),
        ("single", "auto", False),
        ({"use": "scaffold", "with": {"in_loss": True}}, "auto", False),
        ("scaffold", "token_truncate", False),
        ("scaffold", "off", True),
    ],
)
def test_truncated_sampling_is_refused_only_where_it_is_corrected(tiny, tmp_path, strategy, mode, fine):
    rollouts = {"engine": "vllm", "sampling": {"max_tokens": 12, "top_p": 0.8}, "correction": {"mode": mode}}
    wanted = recipe(tiny, tmp_path, strategy=strategy, rollouts=rollouts)
    if fine:
        load(wanted)
    else:
        with pytest.raises(Mistake, match=r"rollouts.sampling.top_p: 0.8 with importance-sampling correction"):
            load(wanted)
