"""Each invariant broken on purpose in a real short training: the run ends with its line. And a sound run meets none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from posttrain.errors import Alarm
from posttrain.rundir import read_lines
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO
from posttrain.trainers.sft import SFT
from rollouts.engines.transformers import TransformersEngine
from rollouts.records import Policy, Rollout, Sampling
from rollouts.strategies.single import SingleTurn

SHORT = {"max_steps": 3}


def train(built, kind=GRPO, callbacks=()):
    built.callbacks.extend(callbacks)
    trainer = kind.build(built)
    try:
        trainer.train()
    finally:
        built.stack.close()
    return trainer


def stops(built, match, kind=GRPO, callbacks=()):
    """The run ends with a line that matches; gives the step at which it did."""
    with pytest.raises(Alarm, match=match) as caught:
        train(built, kind, callbacks)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trained(trainer):
    return {k: v.detach().clone() for k, v in trainer.model.named_parameters() if v.requires_grad}


def train_lines(built):
    return [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]


def picky(completions, **_):
    """Cannot judge about one answer in four."""
    texts = [c[0]["content"] for c in completions]
    return [None if len(t.encode()) % 4 == 1 else len(t) / 12 for t in texts]


# -- a sound run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "args", "keys"),
    [
        (GRPO, {}, {}),
        (GRPO, {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 4, "max_steps": 5}, {}),
        (GRPO, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, {}),
        (GRPO, {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "per_device_train_batch_size": 4}, {}),
        (GRPO, {"mask_truncated_completions": True, "beta": 0.1}, {}),
        (GRPO, {"logging_steps": 2, "max_steps": 4}, {"rollouts": {"sampling": {"max_tokens": 12}, "correction": {"mode": "geometric_mask"}}}),
        (RLOO, {"beta": 0.05}, {}),
    ],
    ids=["plain", "iterations", "accumulation", "two generations a step", "masked", "correction", "rloo"],
)  # fmt: skip
def test_a_sound_run_meets_none_and_is_the_run_without_them(parts, kind, args, keys):
    """With and without: the same weights bit for bit, the same rollouts, the same metrics."""
    algorithm = "rloo" if kind is RLOO else "grpo"
    rewards = [picky, parts.letters]
    settings = {"picky": {"on_error": {"do": "skip_row", "at_most": 1.0}}}
    ran = {}
    for on in (True, False):
        built = parts(rewards=rewards, algorithm=algorithm, args={**SHORT, **args}, settings=settings, **keys)
        if "mask_truncated_completions" in args:  # enough tokens end a completion that some are not truncated
            built.model.generation_config.eos_token_id = list(range(1, 10))
            built.engine = TransformersEngine(replace(built.engine.spec, eos_ids=tuple(range(1, 10))))
        built.invariants = on
        ran[on] = (built, train(built, kind))
    built, with_them = ran[True]
    mine, other = trained(with_them), trained(ran[False][1])
    assert all(torch.equal(mine[k], other[k]) for k in mine)
    rollouts = [sorted(b.run.rollouts.glob("*.jsonl")) for b, _ in ran.values()]
    assert [f.read_text() for f in rollouts[0]] == [f.read_text() for f in rollouts[1]]
    for a, b in zip(*(train_lines(b) for b, _ in ran.values()), strict=True):
        same = {k: v for k, v in a.items() if not k.startswith(("time", "step_time", "ledger/", "parity/"))}
        assert same == {k: v for k, v in b.items() if not k.startswith(("time", "step_time"))}
    records = [json.loads(x) for f in rollouts[0] for x in f.read_text().splitlines()]
    last = train_lines(built)[-1]
    assert last["ledger/issued"] == last["ledger/finished"] == len(records)
    assert last["ledger/sampled_tokens"] == sum(r["completion_tokens"] for r in records)
    waiting = last["ledger/waiting"]
    assert waiting == (4 if args.get("num_iterations") == 2 else 0)  # ends in the middle of a generation
    unjudged = [r for r in records if r["reward"] is None]
    masked = [r for r in records if args.get("mask_truncated_completions") and r["finish"] == "length"]
    assert unjudged
    assert len(masked) < len(records)
    dropped = {(r["step"], r["row_id"], r["sample"]) for r in [*unjudged, *masked]}
    assert abs(last["ledger/dropped"] - len(dropped)) <= waiting
    assert last["ledger/trained"] == len(records) - last["ledger/dropped"] - waiting
    if not waiting:
        kept = [r for r in records if (r["step"], r["row_id"], r["sample"]) not in dropped]
        assert last["ledger/trained_tokens"] == sum(r["completion_tokens"] for r in kept)
    assert last["parity/gap"] < 1e-4


# -- ledger -------------------------------------------------------------------------------------------------------


class SwallowsARow(GRPO):
    """The last row of each batch is replaced by the one before it."""

    def _generate_and_score_completions(self, inputs):
        made = super()._generate_and_score_completions(inputs)
        for value in made.values():
            if isinstance(value, torch.Tensor) and value.dim():
                value[-1] = value[-2]
        return made


class RepeatsAMicroBatch(GRPO):
    """The first half of each generation is trained on twice, the second never."""

    def _prepare_inputs(self, generation_batch):
        if self._buffered_inputs is not None:
            self._buffered_inputs[1] = self._buffered_inputs[0]
        return super()._prepare_inputs(generation_batch)


def test_a_row_lost_and_another_trained_on_twice(parts):
    line = stops(
        parts(args=SHORT),
        r"invariant ledger broken at step 0: row row-\d+, sample 2 .*more often than num_iterations \(1\)",
        SwallowsARow,
    )
    assert "go on from its last checkpoint" in line


def test_a_micro_batch_trained_on_twice(parts):
    args = {"steps_per_generation": 2, "per_device_train_batch_size": 4, **SHORT}
    stops(
        parts(args=args),
        r"invariant ledger broken at step 1: row row-\d+, sample \d .*more often than num_iterations \(1\)",
        RepeatsAMicroBatch,
    )


class Miscounts(TrainerCallback):
    def __init__(self, name):
        self.name = name

    def on_step_begin(self, args, state, control, **_):
        book = self.trainer.invariants.ledger
        setattr(book, self.name, getattr(book, self.name) + 1)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("issued", "9 completions were asked for and 8 came back"),
        ("trained", r"8 completions came back, but 9 trained on \+ 0 dropped \+ 0 waiting are 9"),
        ("micro_batches", "2 micro-batches went through training, and TRL counts 1"),
        ("generations", "2 generations were made where 1 micro-batches need 1"),
    ],
)
def test_books_that_do_not_balance(parts, name, told):
    built, spoiler = parts(args=SHORT), Miscounts(name)
    trainer = GRPO.build(built)
    spoiler.trainer = trainer
    trainer.add_callback(spoiler)
    with pytest.raises(Alarm, match=f"invariant ledger broken at step 1: {told}"):
        trainer.train()


def test_books_of_another_state_of_the_trainer_are_refused_on_load(parts):
    """The books of a run in the middle of a generation, given to a trainer that begins anew."""
    args = {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 4, "max_steps": 3}
    before = train(parts(args=args))
    state = json.loads(json.dumps(before.invariants.state_dict()))
    assert state["ledger"]["held"]
    built = parts(args=args)
    trainer = GRPO.build(built)
    trainer.invariants.load_state_dict(state)
    assert trainer.invariants.state_dict()["ledger"] == state["ledger"]
    with pytest.raises(Alarm, match="3 micro-batches went through training, and TRL counts 0"):
        trainer.train()


def test_the_digest_tells_two_runs_apart(parts):
    digests = []
    for seed in (1, 1, 2):
        built = parts(args=SHORT, run={"name": f"d{len(digests)}", "directory": str(parts.folder), "seed": seed})
        built.arguments["seed"] = seed
        digests.append(train(built).invariants.ledger.digest)
    assert digests[0] == digests[1] != digests[2]


# -- tokens -------------------------------------------------------------------------------------------------------


class Changed(SingleTurn):
    """A strategy whose rollouts are put through `change` on their way to the trainer."""

    def __init__(self, change):
        self.change = change

    def run(self, asks, session):
        rollouts = super().run(asks, session)
        self.change(rollouts[3], session)
        return rollouts


def another_id(rollout, session):
    rollout.completion_ids = [(rollout.completion_ids[0] + 1) % 50, *rollout.completion_ids[1:]]


def through_text(rollout, session):
    """What a text round trip does: the text is the same, the ids are not."""
    text = session.tokenizer.decode(rollout.completion_ids) + " "
    rollout.completion_ids = session.tokenizer(text, add_special_tokens=False)["input_ids"]
    rollout.logprobs = [-1.0] * len(rollout.completion_ids)
    rollout.mask = [1] * len(rollout.completion_ids)


def words_of_its_own(rollout, session):
    rollout.completion_ids = [*rollout.completion_ids, 5]
    rollout.logprobs = [*rollout.logprobs, -0.1]
    rollout.mask = [*rollout.mask, 1]


def another_prompt(rollout, session):
    rollout.prompt_ids = rollout.prompt_ids[1:]


def other_logprobs(rollout, session):
    rollout.logprobs = [x + 0.01 for x in rollout.logprobs]


@pytest.mark.parametrize("change", [another_id, through_text, words_of_its_own, another_prompt, other_logprobs])
def test_a_strategy_that_changes_what_was_sampled(parts, change):
    built = parts(args=SHORT)
    built.strategy = Changed(change)
    stops(
        built,
        r"invariant tokens broken at step 0: row row-\d+, sample 3: its token \d+ \(id \d+\) is marked as the policy's",
    )


def test_a_strategy_may_cut_short_and_write_between_under_mask_0(parts):
    """Two turns with words of a tool between them, the second cut: sound, trained on, counted."""

    class TwoTurns(SingleTurn):
        def run(self, asks, session):
            first = super().run(asks, session)
            ids = [r.prompt_ids + r.completion_ids + [7, 8] for r in first]
            more = session.engine.generate(ids, session.sampling, [session.seed(a, 1) for a in asks])
            return [
                Rollout(
                    row_id=r.row_id, sample=r.sample, version=r.version, prompt_ids=r.prompt_ids, finish=m.finish,
                    completion_ids=[*r.completion_ids, 7, 8, *m.ids[:5]], logprobs=[*r.logprobs, 0.0, 0.0, *m.logprobs[:5]],
                    mask=r.mask + [0, 0] + [1] * len(m.ids[:5]),
                )
                for r, m in zip(first, more, strict=True)
            ]  # fmt: skip

    built = parts(args=SHORT)
    built.strategy = TwoTurns()
    trainer = train(built)
    book = trainer.invariants.ledger
    assert book.trained == 24
    assert book.trained_tokens == book.sampled_tokens


class ChangesIds(GRPO):
    """An id is changed between the rollouts and TRL's batch."""

    def _generate(self, prompts):
        made = list(super()._generate(prompts))
        made[1] = [list(ids) for ids in made[1]]
        made[1][2][0] = (made[1][2][0] + 1) % 50
        return tuple(made)


class CutsARow(GRPO):
    def _generate(self, prompts):
        made = list(super()._generate(prompts))
        made[1] = [ids[:-1] if i == 5 and len(ids) > 1 else ids for i, ids in enumerate(made[1])]
        return tuple(made)


class ForgetsAToken(GRPO):
    """One token is taken out of the loss after all."""

    def _generate_and_score_completions(self, inputs):
        made = super()._generate_and_score_completions(inputs)
        made["completion_mask"][4, 0] = 0
        return made


def test_ids_changed_on_the_way_into_the_batch(parts):
    stops(
        parts(args=SHORT),
        r"tokens broken at step 0: row row-\d+, sample 2: the ids of its completion are not",
        ChangesIds,
    )


def test_a_row_cut_on_the_way_into_the_batch(parts):
    built = parts(args=SHORT, rollouts={"correction": {"mode": "off"}})
    stops(built, r"sample 1: \d+ tokens of its completion are trained on, \d+ were sampled", CutsARow)


def test_a_token_taken_out_of_the_loss(parts):
    stops(
        parts(args=SHORT), r"tokens broken at step 0: \d+ tokens are in the loss of this step, \d+ were", ForgetsAToken
    )


# -- finite -------------------------------------------------------------------------------------------------------


def astronomical(completions, **_):
    """Finite for Python and for the guard, infinite in TRL's float32."""
    return [1e39 if i == 6 else 0.5 for i, _ in enumerate(completions)]


def test_a_reward_too_large_for_trl(parts):
    line = stops(
        parts(rewards=[astronomical], args=SHORT),
        r"rewards broken at step 0: row row-\d+, sample 2: astronomical is 1e\+39",
    )
    assert "bound the reward function" in line


def test_weights_that_left_the_numbers(parts):
    """A learning rate beyond all reason: the second pass over the batch meets a loss that is no number. transformers
    would leave it out of its mean and go on."""
    args = {"learning_rate": 1e30, "num_iterations": 2, "max_steps": 4, "max_grad_norm": 0.0}
    line = stops(parts(args=args), r"invariant numbers broken at step 1: the loss is nan, of row row-\d+, sample \d")
    assert "learning_rate" in line


class Hooked(TrainerCallback):
    """One gradient is infinite from step 1 on; the loss is as good as ever."""

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step == 1:
            parameter = next(p for n, p in model.named_parameters() if "lora_B" in n)
            parameter.register_hook(lambda g: g + math.inf)


@pytest.mark.parametrize("kind", [GRPO, SFT])
def test_a_gradient_that_is_no_number(parts, kind):
    built = parts(args=SHORT, algorithm="sft" if kind is SFT else "grpo")
    if kind is SFT:
        built.train = built.train.map(lambda r: {"completion": [{"role": "assistant", "content": r["answer"]}]})
    stops(built, "invariant numbers broken at step 1: the gradient is not finite", kind, [Hooked()])


def test_the_rows_of_a_batch_that_hold_no_numbers():
    from posttrain.trainers.finite import batch_fault

    batch = {"advantages": torch.zeros(3), "completion_mask": torch.ones(3, 4, dtype=torch.long)}
    assert batch_fault(batch) is None
    # As TRL leaves an infinite advantage.
    assert batch_fault({**batch, "advantages": torch.nan_to_num(torch.tensor([0, math.inf, 0]))})[0] == 1
    for key, shape in (("old_per_token_logps", (3, 4)), ("ref_per_token_logps", (3, 4)), ("old_logps", (3,))):
        values = torch.zeros(shape)
        values[2] = math.nan
        assert batch_fault({**batch, key: values})[0] == 2
    padding = torch.zeros(3, 4)
    padding[1, 3] = math.nan
    mask = batch["completion_mask"].clone()
    mask[1, 3] = 0
    assert batch_fault({**batch, "completion_mask": mask, "old_per_token_logps": padding}) is None


# -- parity -------------------------------------------------------------------------------------------------------


class Apart(TransformersEngine):
    """An engine with weights of its own, that follows through adapters on disk, as a server does."""

    same_numerics = False


class DropsTheAdapter(Apart):
    def sync(self, policy, *, publish=True):
        super().sync(Policy(policy.version), publish=publish)


class StaysBehind(Apart):
    """Never takes up anything after version 1."""

    def sync(self, policy, *, publish=True):
        if policy.version <= 1:
            super().sync(policy, publish=publish)
        self.version = policy.version


def apart(parts, kind, **keys):
    built = parts(args={"max_steps": 4}, rollouts={"correction": {"mode": "token_truncate"}}, **keys)
    built.engine = kind(built.engine.spec)
    return built


def test_an_engine_that_follows_is_at_parity(parts):
    built = apart(parts, Apart)
    train(built)
    lines = train_lines(built)
    assert all(m["parity/gap"] < 1e-4 for m in lines)
    assert lines[0]["parity/effect"] == 0
    assert all(m["parity/effect"] > 1e-3 for m in lines[1:])


@pytest.mark.parametrize("limit", [None, 5.0])
def test_an_engine_that_drops_the_adapter(parts, limit):
    """The first version whose adapter makes a difference, also where the user allows a wide gap."""
    built = apart(parts, DropsTheAdapter, watch={"parity": limit})
    line = stops(
        built,
        r"parity broken at step 1: the engine \(DropsTheAdapter\) after the sync of version 1: .*the adapter was not delivered",
    )
    assert "watch.parity" in line


@pytest.mark.parametrize("kind", [Apart, DropsTheAdapter])
def test_parity_in_bfloat16(parts, tiny, kind):
    """Rounding is larger there, and the adapter's effect must first outgrow it; an engine that follows is never refused."""
    built = parts(
        args={"max_steps": 8, "learning_rate": 3e-2}, model={"name": tiny, "dtype": "bfloat16"},
        rollouts={"correction": {"mode": "token_truncate"}},
    )  # fmt: skip
    built.model = built.model.to(torch.bfloat16)
    built.engine = kind(replace(built.engine.spec, dtype="bfloat16"))
    if kind is Apart:
        train(built)
        lines = train_lines(built)
        print(f"parity in bfloat16: {[(round(m['parity/gap'], 4), round(m['parity/effect'], 4)) for m in lines]}")
        assert lines[-1]["parity/effect"] > 0.1
    else:
        line = stops(built, r"parity broken at step \d: .*the adapter was not delivered")
        print(line)


def test_an_engine_that_serves_an_older_version(parts):
    stops(apart(parts, StaysBehind), r"parity broken at step 2: .* after the sync of version 2: .*an older version")


def test_an_engine_with_another_base(parts, tmp_path):
    built = apart(parts, Apart)
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(built.engine.spec.model)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.01)
    other.save_pretrained(tmp_path / "other")
    built.engine = Apart(replace(built.engine.spec, model=str(tmp_path / "other")))
    stops(built, r"parity broken at step 0: .* of version 0: .*it serves other weights")


@pytest.mark.vllm
def test_vllm_that_drops_the_adapter(parts):
    """Real vLLM: first it follows and is at parity, then a subclass serves the base weights under every version."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from rollouts.engines.vllm import VLLMEngine

    class Drops(VLLMEngine):
        def _swap(self, policy):
            self._adapter = None

    built = parts(args=SHORT)
    engine = built.engine = VLLMEngine(built.engine.spec)
    try:
        train(built)
        gaps = [m["parity/gap"] for m in train_lines(built)]
        print(f"parity of vLLM, float32: {gaps}; effect {[m['parity/effect'] for m in train_lines(built)]}")
        assert max(gaps) < 1e-4
        engine.__class__ = Drops  # the same loaded weights: starting vLLM twice takes half a minute
        broken = parts(args=SHORT)
        broken.engine = engine
        stops(broken, r"parity broken at step 1: the engine \(Drops\) .*the adapter was not delivered")
    finally:
        engine.close()


# -- frozen -------------------------------------------------------------------------------------------------------


class Nudges(TrainerCallback):
    """The smallest possible change of one element of one frozen weight."""

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step == 1:
            frozen = next(p for n, p in model.named_parameters() if not p.requires_grad and "down_proj" in n)
            with torch.no_grad():
                flat = frozen.view(-1)
                flat[7] = torch.nextafter(flat[7], torch.tensor(math.inf))


def test_a_frozen_weight_is_changed_and_no_checkpoint_is_written(parts):
    built = parts(args={"max_steps": 4}, checkpoints={"every": 3})
    line = stops(
        built,
        r"frozen broken at step 3: .*down_proj.* changed after step 0, though nothing trains",
        callbacks=[Nudges()],
    )
    assert not list(built.run.checkpoints.glob("checkpoint-*"))
    assert "remove checkpoints younger than that step" in line


def test_a_frozen_weight_is_changed_in_a_run_without_checkpoints(parts):
    stops(parts(args=SHORT), r"frozen broken at step 3: .*down_proj", callbacks=[Nudges()])


class Merges(TrainerCallback):
    """What TRL's sync to vLLM does: the adapter is added to the base weights and taken out again."""

    def on_step_end(self, args, state, control, model=None, **_):
        model.merge_adapter()
        model.unmerge_adapter()


def test_merging_in_bfloat16_is_found(parts, tiny):
    built = parts(args=SHORT, model={"name": tiny, "dtype": "bfloat16"})
    built.model = built.model.to(torch.bfloat16)
    stops(built, r"frozen broken at step 3: .* and \d+ more changed", callbacks=[Merges()])


def test_base_weights_that_are_not_those_of_the_run(parts):
    state = train(parts(args=SHORT)).invariants.state_dict()
    built = parts(args=SHORT)
    with torch.no_grad():
        built.model.model.norm.weight[0] += 1e-3
    trainer = GRPO.build(built)
    trainer.invariants.frozen.load_state_dict(json.loads(json.dumps(state["frozen"])))
    with pytest.raises(
        Alarm, match=r"frozen broken at step 0: .*norm.weight are not the weights that this run began with"
    ):
        trainer.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8])
@pytest.mark.parametrize("size", [1, 3, 6, 1000])
def test_the_checksum_sees_each_bit_and_no_order(dtype, size):
    from posttrain.trainers.frozen import sums

    generator = torch.Generator().manual_seed(size)
    bits = torch.randint(0, 256, (size * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    tensor = bits.view(dtype)
    before = sums({"x": tensor})["x"]
    assert sums({"x": tensor.clone()[torch.arange(size)]})["x"] == before
    for place in {0, size // 2, size - 1}:
        for bit in range(8):
            other = bits.clone()
            other[place * dtype.itemsize] ^= 1 << bit
            assert sums({"x": other.view(dtype)})["x"] != before


# -- float16 ------------------------------------------------------------------------------------------------------


class Overflows(TrainerCallback):
    """accelerate's flag for a step that the loss scaler skipped, as it would be set on a GPU."""

    def on_optimizer_step(self, args, state, control, optimizer=None, **_):
        optimizer._is_overflow = state.global_step != 1


def test_steps_that_float16_skips(parts, monkeypatch):
    """They are dropped in the books; too many in a row end the run."""
    built = parts(args=SHORT)
    trainer = train(built, callbacks=[Overflows()])
    assert trainer.invariants.ledger.dropped == {"overflow": 16}
    assert trainer.invariants.ledger.trained == 8
    monkeypatch.setattr("posttrain.trainers.invariants.SKIPPED_IN_A_ROW", 2)
    built = parts(args={"max_steps": 5})
    stops(built, r"numbers broken at step 4: 2 steps in a row were skipped", callbacks=[Overflows()])


# -- seeds --------------------------------------------------------------------------------------------------------


class Deaf(TransformersEngine):
    """Draws by the place in the batch: every run of every seed is the same run."""

    def generate(self, prompt_ids, sampling, seeds):
        return super().generate(prompt_ids, sampling, range(len(seeds)))


class Forgetful(TransformersEngine):
    """Draws by a stream of its own that goes on and on: no run repeats."""

    calls = 0

    def generate(self, prompt_ids, sampling, seeds):
        self.calls += 1
        return super().generate(prompt_ids, sampling, [1000 * self.calls + i for i in range(len(seeds))])


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Deaf, "runs that should differ repeat each other"), (Forgetful, "no run can be repeated")],
)
def test_an_engine_that_does_not_draw_by_its_seeds(parts, kind, told):
    built = parts(args=SHORT)
    built.engine = kind(built.engine.spec)
    stops(built, rf"seeds broken at step 0: the engine \({kind.__name__}\): .*{told}")


def test_what_chance_lets_independent_draws_share(parts):
    """The bound behind the check, on real draws: sums over 8 pairs stay below Gamma(8, 1), at any temperature."""
    from scipy import stats

    from posttrain.trainers.draws import ROWS, TOO_MUCH, shared

    built = parts()
    built.engine.sync(Policy(0))
    prompt = built.tokenizer("say 3")["input_ids"]
    assert stats.gamma(ROWS).sf(TOO_MUCH) < 2e-10
    for temperature in (0.3, 0.7, 1.0):
        sampling, rows = Sampling(temperature=temperature, max_tokens=8), 512
        made = built.engine.generate([prompt] * 2 * rows, sampling, range(2 * rows))
        sums = [shared(made[i : i + ROWS], made[rows + i : rows + i + ROWS]) for i in range(0, rows, ROWS)]
        for limit in (8, 12, 16):
            assert sum(s > limit for s in sums) <= stats.binom(len(sums), stats.gamma(ROWS).sf(limit)).ppf(0.999999)


def test_equal_answers_of_a_policy_that_is_sure_of_itself_are_no_fault(parts):
    """At a temperature near 0 all seeds give one answer, and its log-probs say that this is no wonder."""
    built = parts(args=SHORT)
    built.sampling = Sampling(temperature=0.01, max_tokens=12)
    train(built)
    from posttrain.trainers.draws import probe

    prompt = built.tokenizer("say 3")["input_ids"]
    built.engine.sync(Policy(0))
    assert probe(built.engine, prompt, built.sampling, 0) is None
    made = built.engine.generate([prompt] * 2, built.sampling, [1, 2])
    assert made[0].ids == made[1].ids
