"""The second look: what passes through a recipe against what it is for."""

import dataclasses
import inspect
import re
import typing

import pytest
from peft import LoraConfig
from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig
from trl.trainer import dpo_trainer, grpo_trainer, sft_trainer

from posttrain.errors import Mistake
from posttrain.recipe import load, read, shelf
from posttrain.recipe.check import AT_LEAST, CLOSED, _adapter, _trainer_args, check, reward_names
from posttrain.recipe.hints import mismatch

CONFIGS = [GRPOConfig, RLOOConfig, SFTConfig, DPOConfig]


def wrong(args, config=GRPOConfig):
    return [f"{'.'.join(map(str, path[2:]))}: {text}" for path, text in _trainer_args(args, config)]


@pytest.mark.parametrize("config", CONFIGS)
def test_trls_own_defaults_fit(config):
    """Every default of every class passes our reading of its type hint, so that a hint is never read too strictly."""
    defaults = {}
    for field in dataclasses.fields(config):
        value = (
            field.default
            if field.default is not dataclasses.MISSING
            else field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else None
        )
        if not isinstance(value, str | int | float | bool | list | dict | None):
            value = value.value
        defaults[field.name] = value
    assert wrong({k: getattr(v, "value", v) for k, v in defaults.items()}, config) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"learning_rat": 1e-5}, 'learning_rat: unknown key of GRPOConfig; did you mean "learning_rate"?'),
        ({"learning_rate": "1e-5"}, 'learning_rate: should be a number, got text "1e-5"; leave out the quotes'),
        ({"learning_rate": -1}, "learning_rate: should be at least 0, got -1"),
        ({"max_steps": 1.5}, "max_steps: should be a whole number, got 1.5"),
        ({"max_steps": True}, "max_steps: should be a whole number, got true"),
        ({"num_generations": 1}, "num_generations: should be at least 2, got 1"),
        ({"bf16": "no"}, 'bf16: should be true or false or null, got text "no"; write false'),
        ({"bf16": 1}, "bf16: should be true or false or null, got 1"),
        ({"loss_type": "dapoo"}, 'loss_type: should be one of grpo, bnpo, dr_grpo, dapo, cispo, luspo, sapo, vespo, got text "dapoo"; did you mean "dapo"?'),
        ({"scale_rewards": "grup"}, 'scale_rewards: should be one of group, batch, none, true, false, got text "grup"; did you mean "group"?'),
        ({"importance_sampling_level": "sentence"}, 'importance_sampling_level: should be one of token, sequence, got text "sentence"; did you mean "sequence"?'),
        ({"optim": "adamw"}, 'optim: text "adamw" is none of the 41 known values; did you mean "adamw_torch"?'),
        ({"eval_strategy": "setps"}, 'eval_strategy: should be one of no, steps, epoch, got text "setps"; did you mean "steps"?'),
        ({"save_strategy": "never"}, 'save_strategy: should be one of no, steps, epoch, best, got text "never"'),
        ({"train_sampling_strategy": "sorted"}, 'train_sampling_strategy: should be one of random, sequential, group_by_length, batch_rebalance, got text "sorted"'),
        ({"optim_target_modules": [1]}, "optim_target_modules: should be null or text or a list of text, got a list"),
        ({"gradient_checkpointing_kwargs": [1]}, "gradient_checkpointing_kwargs: should be a mapping or text or null, got a list"),
        ({"loss_type": ["dapo"]}, "loss_type: should be one of grpo, bnpo, dr_grpo, dapo, cispo, luspo, sapo, vespo, got a list"),
    ],
)  # fmt: skip
def test_wrong_arguments(args, message):
    assert wrong(args) == [message]


def test_right_arguments():
    assert wrong({"learning_rate": 1, "max_steps": 10, "bf16": None, "optim": "sgd", "lr_scheduler_type": "cosine", "eval_strategy": "no",
                  "scale_rewards": False, "lr_scheduler_kwargs": {"num_cycles": 1}, "num_train_epochs": 0.5, "delta": 2, "warmup_steps": 0.1}) == []  # fmt: skip
    assert wrong({"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}, DPOConfig) == []
    assert wrong({"loss_type": "ipo", "f_divergence_type": "js_divergence"}, DPOConfig) == []
    assert wrong({"loss_type": ["sigmoid", "stf"]}, DPOConfig)[0].startswith("loss_type.1: ")
    assert wrong({"reward_clip_range": [-1, 1.0]}, RLOOConfig) == []
    assert wrong({"reward_clip_range": [-1]}, RLOOConfig) == [
        "reward_clip_range: should be a list of 2 or null, got a list"
    ]


class TestTheVisibleTable:
    """`CLOSED` is written by hand; TRL's source is the oracle."""

    SOURCES: typing.ClassVar = {"GRPOConfig": grpo_trainer, "SFTConfig": sft_trainer, "DPOConfig": dpo_trainer}

    def test_each_value_stands_in_trls_source(self):
        for config, keys in CLOSED.items():
            source = inspect.getsource(self.SOURCES[config]) + inspect.getsource(
                inspect.getmodule(next(c for c in CONFIGS if c.__name__ == config))
            )
            for values in keys.values():
                for value in values:
                    assert isinstance(value, bool) or f'"{value}"' in source or f"'{value}'" in source, (config, value)

    def test_no_value_of_trls_is_missing(self):
        """Everything that the trainers' sources compare these settings with is in the table."""
        for config, keys in CLOSED.items():
            source = inspect.getsource(self.SOURCES[config])
            for key, values in keys.items():
                compared = set(re.findall(rf'\b{key} == "(\w+)"', source))
                for group in re.findall(rf"\b{key} (?:not )?in [\[({{]([^\])}}]*)[\])}}]", source):
                    compared |= set(re.findall(r'"(\w+)"', group))
                assert compared <= set(values), (config, key, compared)

    def test_the_keys_exist(self):
        fields = {c.__name__: {f.name for f in dataclasses.fields(c)} for c in CONFIGS}
        for config, keys in CLOSED.items():
            assert set(keys) <= fields[config]
        assert set(AT_LEAST) <= set().union(*fields.values())


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True), (True, float, False), (True, int, False), (1.0, int, False), ("1", int, False), (1, str, False),
        (None, int | None, True), (None, int, False), ([1, 2], list[float], True), (["a"], list[float], False), ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, ...], True), ([1], tuple[int, int], False), ({"a": 1}, dict[str, int], True), ({"a": "b"}, dict[str, int], False),
        ("b", typing.Literal["a", "b"], True), ("c", typing.Literal["a", "b"], False), (1, typing.Literal[True], False), ("x", typing.Any, True),
        ({}, dict, True), ([], dict, False), ("a", typing.Optional[list[str] | str], True),  # noqa: UP045
    ],
)  # fmt: skip
def test_types(value, hint, fits):
    assert (mismatch(value, hint) is None) == fits


class TestAdapter:
    def wrong(self, valid, **adapter):
        return [text for _, text in _adapter(load({**valid, "adapter": adapter}))]

    def test_fields_of_lora_config(self, valid):
        good = {"bias": "none", "use_rslora": True, "use_dora": False, "modules_to_save": ["embed_tokens"], "init_lora_weights": "orthogonal",
                "layers_to_transform": [1, 2], "rank_pattern": {"q_proj": 4}, "exclude_modules": "x"}  # fmt: skip
        assert self.wrong(valid, **good) == []
        LoraConfig(**good)

    @pytest.mark.parametrize(
        ("adapter", "message"),
        [
            ({"use_rslor": True}, 'unknown key of LoraConfig; did you mean "use_rslora"?'),
            ({"bias": "some"}, 'should be one of none, all, lora_only, got text "some"'),
            ({"use_dora": "yes"}, 'should be true or false, got text "yes"; write true'),
            ({"modules_to_save": "embed"}, 'should be a list of text or null, got text "embed"'),
            ({"eva_config": {}}, "takes a Python object, which a recipe cannot give; leave it out"),
            ({"init_lora_weights": "pisa"}, None),
            *(
                (
                    {"init_lora_weights": init},
                    f"{init} changes the base weights in memory, so the saved adapter would not fit the base model; use true "
                    "or gaussian",
                )
                for init in ("pissa", "pissa_niter_4", "olora")
            ),
        ],
    )
    def test_wrong_ones(self, valid, adapter, message):
        found = self.wrong(valid, **adapter)
        assert found == [message] or (message is None and len(found) == 1)


CODE = """
from rollouts.strategies.scaffold import Scaffold
class Mine(Scaffold): ...
class Frank:
    shows_more = True
    def run(self, asks, session): ...
class Engine:
    same_numerics = False
    def __init__(self, spec, *, urls, retries=3): ...
    def generate(self, prompt_ids, sampling, seeds): ...
    def sync(self, policy, *, publish=True): ...
    def close(self): ...
class NoEngine:
    def generate(self): ...
class Strategy:
    def __init__(self, depth=1): ...
    def run(self, asks, session): ...
def rows(n, seed=0): ...
def model(seed=0): ...
def brevity(completion_ids, *, target, **columns): ...
def strict(prompts, completions, completion_ids): ...
async def later(prompts, **columns): ...
class Judge:
    def __init__(self, url, model="x"): ...
    def __call__(self, prompts, completions, **columns): ...
class Silent:
    def __init__(self): ...
number = 5
from trl import GRPOConfig
class Trainer:
    Config = GRPOConfig
"""


SCAFFOLDS = ("scaffold", "rollouts.strategies.scaffold:Scaffold", "posttrain.miniature.hints:Hints", "mine.py:Mine")


CUSTOM = {"use": "mine.py:Engine", "with": {"urls": []}}
LINE = r"rollouts\.sampling\.top_p: 0\.8 with importance-sampling correction"


class TestTruncatedSampling:
    """Without a correction it is fine, and a strategy that shows the sampler more than the loss has none under `auto`: whatever the
    strategy is called, and whatever the engine."""

    @pytest.fixture
    def wrong(self, valid, write):
        write(CODE, "mine.py")

        def of(strategy, engine="vllm", mode="auto", code=True):
            valid["rollouts"] = {"engine": engine, "strategy": strategy, "correction": {"mode": mode},
                                 "sampling": {"max_tokens": 16, "top_p": 0.8}}  # fmt: skip
            try:
                check(load(valid), code=code)
            except Mistake as e:
                return str(e)
            return None

        return of

    @pytest.mark.parametrize("engine", ["vllm", CUSTOM], ids=["vllm", "custom"])
    @pytest.mark.parametrize("name", SCAFFOLDS)
    def test_with_a_scaffold(self, wrong, name, engine):
        assert wrong(name, engine) is None
        assert wrong({"use": name, "with": {"alpha": 20.0}}, engine) is None
        assert re.search(LINE, wrong({"use": name, "with": {"in_loss": True}}, engine))
        assert re.search(LINE, wrong(name, engine, mode="token_truncate"))

    @pytest.mark.parametrize("engine", ["vllm", CUSTOM], ids=["vllm", "custom"])
    def test_with_others(self, wrong, engine):
        assert wrong("mine.py:Frank", engine) is None
        for name in ("single", "mine.py:Strategy", "rollouts.strategies.single:SingleTurn"):
            assert re.search(LINE, wrong(name, engine))
            assert wrong(name, "transformers") is None

    def test_code_that_is_not_ours_is_not_asked_by_who_only_looks(self, wrong):
        assert wrong("mine.py:Strategy", code=False) is None
        assert re.search(LINE, wrong("rollouts.strategies.single:SingleTurn", code=False))


@pytest.mark.parametrize("name", [*SCAFFOLDS, "single"])
def test_a_mask_of_off_policy_rows_does_not_go_with_a_scaffold(valid, write, name):
    """It would drop what was scaffolded: TRL compares with the log-probs that the sampler had under another prompt."""
    write(CODE, "mine.py")
    valid["trainer"]["args"]["off_policy_mask_threshold"] = 0.5
    for in_loss in (False, True):
        valid["rollouts"] = {"strategy": {"use": name, "with": {"in_loss": in_loss} if name != "single" else {}}}
        if name == "single" or in_loss:
            check(load(valid))
        else:
            with pytest.raises(
                Mistake, match=r"trainer\.args\.off_policy_mask_threshold: would leave out the scaffolded rows"
            ):
                check(load(valid))


def test_a_scaffold_in_the_loss_does_not_go_with_rloo(valid):
    """Known before a model is there, and not at the first batch."""
    valid["trainer"]["algorithm"] = "rloo"
    valid["trainer"]["args"] = {k: v for k, v in valid["trainer"]["args"].items() if k != "loss_type"}
    valid["rollouts"] = {"strategy": {"use": "scaffold", "with": {"in_loss": False}}}
    check(load(valid))
    valid["rollouts"] = {"strategy": {"use": "scaffold", "with": {"in_loss": True}}}
    with pytest.raises(Mistake, match=r"rollouts\.strategy\.with\.in_loss: rloo trains on the row's own prompt alone"):
        check(load(valid))


class TestPlugIns:
    @pytest.fixture
    def base(self, valid, write):
        write(CODE, "mine.py")
        valid["rewards"] = [{"use": "mine.py:brevity", "with": {"target": 5}}]
        valid["data"] = {"train": {"use": "mine.py:rows", "with": {"n": 5}}}
        valid["rollouts"]["engine"] = {"use": "mine.py:Engine", "with": {"urls": []}}
        valid["rollouts"]["strategy"] = {"use": "mine.py:Strategy", "with": {"depth": 2}}
        valid["model"] = {"name": "mine.py:model", "with": {"seed": 1}}
        return valid

    def test_all_that_fits(self, base):
        for reward in ("later", "strict"):
            base["rewards"].append({"use": f"mine.py:{reward}"})
        base["rewards"].append({"use": "mine.py:Judge", "with": {"url": "http://a"}})
        base["trainer"]["algorithm"] = "mine.py:Trainer"
        check(load(base))

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("rewards.0.with.tarhet=5", 'rewards.0.with.tarhet: unknown argument of brevity; did you mean "target"?'),
            ("rewards.0.with.completions=5", "rewards.0.with.completions: is what every reward is called with; bind another name"),
            ("rewards.0.use=mine.py:brevty", 'rewards.0.use: {here}/mine.py has no "brevty"; did you mean "brevity"?'),
            ("rewards.0.use=no_such_module:f", 'rewards.0.use: no module "no_such_module" (asked for no_such_module); is it installed, is the name right?'),
            ("rewards.0.use=mine.py:number", "rewards.0.use: is not a function"),
            ("rewards.0={use: 'mine.py:Judge'}", "rewards.0.with: Judge needs url"),
            ("rewards.0={use: 'mine.py:Silent'}", "rewards.0.use: Silent has no __call__(prompts, completions, completion_ids, **columns)"),
            ("rollouts.engine.with.url=x", 'rollouts.engine.with.url: unknown argument of Engine; did you mean "urls"?'),
            ("rollouts.engine.with.spec=x", "rollouts.engine.with.spec: is given by posttrain; leave it out"),
            ("rollouts.engine.with={}", "rollouts.engine.with: Engine needs urls"),
            ("rollouts.engine=mine.py:rows", "rollouts.engine: is not a class; an engine is one, with generate, sync and close"),
            ("rollouts.engine=mine.py:NoEngine", "rollouts.engine: NoEngine has no method sync; an engine has generate, sync and close"),
            ("rollouts.sampling.top_p=0.9", "rollouts.sampling.top_p: 0.9 with importance-sampling correction"),
            ("rollouts.strategy=mine.py:NoEngine", "rollouts.strategy: is not a class with a method run(asks, session)"),
            ("rollouts.strategy.with.dept=1", 'rollouts.strategy.with.dept: unknown argument of Strategy; did you mean "depth"?'),
            ("data.train.with={}", "data.train.with: rows needs n"),
            ("data.train.use=mine.py:number", "data.train.use: is not a function"),
            ("model.with.sead=1", 'model.with.sead: unknown argument of model; did you mean "seed"?'),
            ("trainer.args.los_type=dapo", 'trainer.args.los_type: unknown key of GRPOConfig; did you mean "loss_type"?'),
            ("evaluation.0.benchmark=gsm9k", 'evaluation.0.benchmark: text "gsm9k" is not known; did you mean "gsm8k"?'),
            ("evaluation.0.benchmark=missing/own.jsonl", 'evaluation.0.benchmark: text "missing/own.jsonl": no such file (looked in '),
            ("evaluation.0.benchmark=mine.py:riddles", 'evaluation.0.benchmark: {here}/mine.py has no "riddles"'),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, base, tmp_path, override, message):
        loaded = read(base, [override])
        with pytest.raises(Mistake) as caught:
            check(loaded.recipe, loaded=loaded, benchmarks={"gsm8k", "arithmetic"})
        first = str(caught.value).splitlines()[0]
        assert message.replace("{here}", str(tmp_path)) in first
        assert first.startswith(f'override "{override}": ')
        with pytest.raises(Mistake) as bare:
            check(loaded.recipe, GRPOConfig, benchmarks={"gsm8k", "arithmetic"})
        assert str(bare.value).splitlines()[0] == first.removeprefix(f'override "{override}": ')

    def test_code_that_fails_on_import_is_one_line(self, base, write):
        write("raise RuntimeError('a\\nb')", "bad.py")
        with pytest.raises(Mistake, match=r"rewards\.0\.use: \S*bad\.py could not be imported: RuntimeError: a b$"):
            check(load(base, ["rewards.0.use=bad.py:f"]))


def test_names_of_rewards_are_told_apart(valid):
    valid["rewards"] = [
        {"use": "a:f"},
        {"use": "b:f"},
        {"use": "b:C.f"},
        {"use": "c:g", "name": "f_2"},
        {"use": "c:g"},
    ]
    assert reward_names(load(valid)) == ["f", "f_3", "f_4", "f_2", "g"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adapter.use_dora=true"], "adapter: vLLM would not serve use_dora: True as PEFT means it"),
        (["adapter.init_lora_weights=pissa"], "which changes the base weights"),
        (["adapter=null"], "vllm-server follows adapters only"),
        (["rollouts.sampling.temperature=2.5"], "vLLM takes at most 2, not 2.5"),
    ],
)
def test_what_vllm_cannot_serve_is_refused(words, said):
    loaded = read(shelf() / "gsm8k_grpo_qwen.yaml", words)
    with pytest.raises(Mistake, match=re.escape(said)):
        check(loaded.recipe, None, loaded)
