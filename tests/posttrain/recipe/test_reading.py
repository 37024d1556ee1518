"""Files, `extends`, overrides, precedence, and the one line that a mistake is."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from posttrain.errors import Mistake
from posttrain.recipe import load, read
from posttrain.recipe.reading import parse_value

TEXT = textwrap.dedent(
    """\
    model: {name: miniature/arithmetic}
    adapter: {r: 16}
    data:
      train:
        use: posttrain.miniature.arithmetic:train
        with: {n: 100}
    rewards:
      - use: rewards.math:correct
        weight: 1.0
      - use: rewards.length:cosine
        weight: 0.5
    rollouts:
      engine: transformers
      sampling: {max_tokens: 96}
    trainer:
      algorithm: grpo
      args:
        learning_rate: 1e-3
    run:
      name: demo
    """
)


def mistake(recipe, overrides=()):
    with pytest.raises(Mistake) as caught:
        load(recipe, list(overrides))
    return str(caught.value)


class TestFiles:
    def test_a_file_and_the_same_mapping_are_the_same_recipe(self, write, valid):
        assert load(write(valid)) == load(valid)

    def test_what_was_given_is_kept(self, write):
        loaded = read(write(TEXT), ["run.seed=3"])
        assert loaded.text == TEXT
        assert loaded.overrides == ["run.seed=3"]
        assert loaded.recipe.run.seed == 3
        assert loaded.line("rewards.1.weight", "x") == "recipe.yaml:11: rewards.1.weight: x"
        assert loaded.line("run.seed", "x") == 'override "run.seed=3": run.seed: x'
        assert loaded.line("trainer.args.beta", "x") == "recipe.yaml:17: trainer.args.beta: x"

    def test_resolved_is_a_recipe_again(self, write, valid):
        loaded = read(write(valid))
        resolved = loaded.resolved()
        assert resolved["rollouts"]["sampling"]["top_p"] == 1.0
        assert load(json.loads(json.dumps(resolved))) == loaded.recipe

    def test_text_of_a_mapping_is_a_recipe_file(self, write, valid):
        valid["model"]["template_args"] = {"a": "1e-6", "b": "no", "c": 1e-6}
        loaded = read(valid)
        assert load(write(loaded.text, "again.yaml")) == loaded.recipe

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "r.yaml: empty; a recipe needs at least model, data, trainer and run"),
            (b"# nothing\n", "r.yaml: empty; a recipe needs at least model, data, trainer and run"),
            (
                b"- a\n- b\n",
                "r.yaml:1: a recipe is a mapping of keys (model, data, trainer, run, ...), this is a list",
            ),
            (
                b"hello",
                'r.yaml:1: a recipe is a mapping of keys (model, data, trainer, run, ...), this is text "hello"',
            ),
            (b"a: \xff\xfe", "r.yaml: not UTF-8 text (byte 3); is this a recipe?"),
            (b"\x7fELF\x02\x01\x01\x00", "r.yaml:1: character 0x7f is not allowed in YAML"),
            (
                b"x" * 1_000_001,
                "r.yaml: larger than 1000000 bytes; a recipe is a page of text, is this the right file?",
            ),
        ],
    )
    def test_files_that_are_no_recipe(self, write, tmp_path, content, message):
        write("", "r.yaml")
        (tmp_path / "r.yaml").write_bytes(content)
        assert mistake("r.yaml") == message

    def test_a_byte_order_mark_does_no_harm(self, write, tmp_path):
        write("")
        (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
        assert load("recipe.yaml").run.name == "demo"

    def test_missing_files_and_folders(self, write, tmp_path):
        write(TEXT)
        assert mistake("other.yaml") == "other.yaml: no such file"
        assert "Is a directory" in mistake(str(tmp_path))
        assert mistake("a\0b") == "a\\x00b: cannot be read: embedded null byte"
        on_shelf = 'no such file; it is on the shelf: "posttrain recipes cp arithmetic_grpo" copies it here'
        assert mistake("arithmetic_grpo.yaml") == f"arithmetic_grpo.yaml: {on_shelf}"
        assert mistake("arithmetic_grpo") == f"arithmetic_grpo: {on_shelf}"


TYPICAL = [
    ("weight: 0.5", "wieght: 0.5", 'recipe.yaml:11: rewards.1.wieght: unknown key; did you mean "weight"?'),
    ("weight: 0.5", "weight: high", 'recipe.yaml:11: rewards.1.weight: should be a number, got text "high"'),
    ("weight: 0.5", 'weight: "0.5"', 'recipe.yaml:11: rewards.1.weight: should be a number, got text "0.5"; leave out the quotes'),
    ("r: 16", "r: 16.5", "recipe.yaml:2: adapter.r: should be a whole number, got 16.5"),
    ("r: 16", "r: 0", "recipe.yaml:2: adapter.r: should be at least 1, got 0"),
    ("r: 16", "r: true", "recipe.yaml:2: adapter.r: should be a whole number, got true"),
    ("max_tokens: 96", "max_tokens: 1_000", 'recipe.yaml:14: rollouts.sampling.max_tokens: should be a whole number, got text "1_000"; write 1000'),
    ("max_tokens: 96", "max_token: 96", 'recipe.yaml:14: rollouts.sampling.max_token: unknown key; did you mean "max_tokens"?'),
    ("max_tokens: 96", "temperature: 0", "recipe.yaml:14: rollouts.sampling.temperature: should be above 0, got 0"),
    ("max_tokens: 96", "top_p: 1.5", "recipe.yaml:14: rollouts.sampling.top_p: should be at most 1, got 1.5"),
    ("max_tokens: 96", "stop: END", 'recipe.yaml:14: rollouts.sampling.stop: should be a list, got text "END"; put it in brackets'),
    ("{name: miniature/arithmetic}", "{name: miniature/arithmetic, dtype: bf16}",
     'recipe.yaml:1: model.dtype: should be one of float32, bfloat16, float16, got text "bf16"; did you mean "bfloat16"?'),
    ("{name: miniature/arithmetic}", "{name: miniature/arithmetic, dtype: bfloat}",
     'recipe.yaml:1: model.dtype: should be one of float32, bfloat16, float16, got text "bfloat"; did you mean "bfloat16"?'),
    ("model: {name: miniature/arithmetic}", "modell: {name: x}",
     'recipe.yaml:1: modell: unknown key; did you mean "model"?'),
    ("name: demo", "name: my run", "recipe.yaml:20: run.name: text \"my run\" is not allowed (Name of the run and of its folder: letters, digits, `.`, `_`, `-`)"),
    ("name: demo", "name: 7", 'recipe.yaml:20: run.name: should be text, got 7; put it in quotes: "7"'),
    ("name: demo", "seed: 1", "recipe.yaml:19: run.name: missing (Name of the run and of its folder: letters, digits, `.`, `_`, `-`)"),
    ("engine: transformers", "engine: vlm", 'recipe.yaml:13: rollouts.engine: text "vlm" is not known; did you mean "vllm"? (or give an import path)'),
    ("engine: transformers", "engine: [vllm]", "recipe.yaml:13: rollouts.engine: should be a name or a mapping with `use`, got a list"),
    ("engine: transformers", "engine: {name: vllm}",
     "recipe.yaml:13: rollouts.engine.use: missing (Short name or import path)\nrecipe.yaml:13: rollouts.engine.name: unknown key; known: use, with"),
    ("engine: transformers", "engine: {uses: vllm}", 'recipe.yaml:13: rollouts.engine.uses: unknown key; did you mean "use"?'),
    ("algorithm: grpo", "algorithm: grop", 'recipe.yaml:16: trainer.algorithm: text "grop" is not known; did you mean "grpo"? (or give an import path)'),
    ("learning_rate: 1e-3", "temperature: 0.7", "recipe.yaml:18: trainer.args.temperature: belongs in rollouts.sampling.temperature"),
    ("learning_rate: 1e-3", "output_dir: x", "recipe.yaml:18: trainer.args.output_dir: belongs in run.directory and run.name"),
    ("learning_rate: 1e-3", "vllm_enable_sleep_mode: true", "recipe.yaml:18: trainer.args.vllm_enable_sleep_mode: belongs in rollouts.engine.with"),
    ("learning_rate: 1e-3", "max_prompt_length: 512", "recipe.yaml:18: trainer.args.max_prompt_length: belongs in data.train.max_prompt_tokens"),
    ("learning_rate: 1e-3", "loss_type: cispo",
     "recipe.yaml:18: trainer.args.loss_type: cispo needs epsilon_high, the cap of its weights, for example 5.0; without it TRL takes epsilon and caps all of them at 0.2"),
    ("adapter: {r: 16}", "adapter: {target_modules: [q_proj, lm_head]}",
     "recipe.yaml:2: adapter.target_modules: lm_head cannot be adapted: TRL computes log-probs from its weight directly"),
    ("adapter: {r: 16}", "seed: 3", 'recipe.yaml:2: seed: unknown key here; did you mean "run.seed"?'),
    ("use: rewards.math:correct", "use: correct", 'recipe.yaml:8: rewards.0.use: text "correct" is not an import path (package.module:function or file.py:function)'),
    ("use: rewards.math:correct", "use: my.py:f", "recipe.yaml:8: rewards.0.use: no file my.py (looked in {cwd})"),
    ("    with: {n: 100}", "    prompt: {question}", "recipe.yaml:6: data.train.prompt: should be text, got a mapping (braces make a mapping in YAML: put the text in quotes)"),
    ("    with: {n: 100}", "    hub: openai/gsm8k", "recipe.yaml:6: data.train.hub: use and hub are given; a source has one of use, hub, path"),
    ("    use: posttrain.miniature.arithmetic:train\n    with: {n: 100}", "    split: test",
     "recipe.yaml:4: data.train: says no source; give one of use (a function), hub (a data set id), path (a file)"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), TYPICAL)
def test_typical_mistakes_are_one_line_each(write, tmp_path, right, wrong, message):
    assert TEXT.count(right) == 1
    assert mistake(write(TEXT.replace(right, wrong))) == message.replace("{cwd}", str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": []}, "recipe: rewards: missing; grpo needs at least one, for example - {use: rewards.math:correct}"),
        ({"trainer": {"algorithm": "dpo"}}, "recipe: rewards: dpo does not use rewards, they would be ignored; leave them out (rewards: [])"),
        ({"trainer": {"algorithm": "sft"}, "rewards": [], "rollouts": {"strategy": "scaffold"}},
         "recipe: rollouts.strategy: sft draws no rollouts to train on, scaffold would be ignored; leave it out"),
        ({"evaluation": [{"benchmark": "gsm8k", "samples": 4}]},
         "recipe: evaluation.0.samples: 4 samples at temperature 0 would all be equal; set evaluation.0.temperature, or samples: 1"),
        ({"evaluation": [{"benchmark": "gsm8k", "before": False, "after": False}]},
         "recipe: evaluation.0: never due: before and after are false and every is not given; leave it out"),
        ({"evaluation": [{"benchmark": "a/own.jsonl"}, {"benchmark": "b/own.jsonl"}]},
         'recipe: evaluation.1.benchmark: text "own" is evaluation.0 already; their results would overwrite each other'),
        ({"evaluation": [{"benchmark": "gsm8k"}, {"benchmark": "gsm8k"}]},
         'recipe: evaluation.1.benchmark: text "gsm8k" is evaluation.0 already; their results would overwrite each other'),
        ({"rollouts": {"engine": "vllm", "sampling": {"top_p": 0.9}}},
         "recipe: rollouts.sampling.top_p: 0.9 with importance-sampling correction (vllm engine's default) is biased: the sampler's "
         "log-probs are renormalised over fewer tokens than the trainer's; set top_p: 1 or rollouts.correction.mode: off"),
        ({"rollouts": {"correction": {"mode": "token_mask"}, "sampling": {"top_k": 50}}},
         "recipe: rollouts.sampling.top_k: 50 with importance-sampling correction (token_mask) is biased: the sampler's "
         "log-probs are renormalised over fewer tokens than the trainer's; set top_k: 0 or rollouts.correction.mode: off"),
        ({"rollouts": {"correction": {"mode": "token_mask", "clip_min": 2, "clip_max": 1}}},
         "recipe: rollouts.correction.clip_min: 2 must be below clip_max 1"),
        ({"model": {"name": "x", "max_length": 100}, "rollouts": {"sampling": {"max_tokens": 100}}},
         "recipe: model.max_length: 100 leaves no room for a prompt before rollouts.sampling.max_tokens = 100"),
        ({"data": {"train": {"path": "a.txt"}}}, 'recipe: data.train.path: text "a.txt" should end in .json, .jsonl, .csv or .parquet'),
        ({"data": {"train": {"path": "a.csv"}, "eval": {"path": "b.csv"}}},
         "recipe: data.eval: never used: trainer.args.eval_strategy is not set (steps or epoch)"),
        ({"trainer": {"args": {"bf16": True, "fp16": True}}}, "recipe: trainer.args.fp16: bf16 is true as well; choose one"),
        ({"trainer": {"args": {"eval_strategy": "steps"}}},
         "recipe: trainer.args.eval_strategy: needs rows under data.eval (benchmarks under `evaluation` need no eval_strategy)"),
        ({"trainer": {"args": {"loss_type": "luspo"}}}, "recipe: trainer.args.loss_type: luspo needs importance_sampling_level: sequence"),
        ({"adapter": {"task_type": "CAUSAL_LM"}},
         "recipe: adapter.task_type: does not belong in a recipe (posttrain sets it); leave it out"),
        ({"rewards": [{"use": "a:f", "name": "x"}, {"use": "a:g", "name": "x"}]}, 'recipe: rewards.1.name: text "x" is the name of rewards.0 already'),
        ({"rewards": [{"use": "a:f", "weight": 0}]}, "recipe: rewards.0.weight: every reward has weight 0, so there is nothing to learn"),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other(valid, change, message):
    assert mistake({**valid, **change}) == message


def test_truncated_sampling_without_correction_is_fine(valid):
    load({**valid, "rollouts": {"sampling": {"top_p": 0.9}}})
    load({**valid, "rollouts": {"engine": "vllm", "sampling": {"top_p": 0.9}, "correction": {"mode": "off"}}})


def test_several_mistakes_are_a_line_each_and_not_too_many(valid):
    lines = mistake({**valid, **{f"extra{i}": 1 for i in range(9)}}).splitlines()
    assert len(lines) == 5
    assert all(line.startswith("recipe: extra") for line in lines)
    assert lines[-1].endswith("(and 4 more)")


class TestOverrides:
    def test_values_are_read_as_in_a_file(self, write):
        recipe = load(
            write(TEXT),
            [
                "trainer.args.learning_rate=1e-6",
                "rewards.0.weight=2",
                "run.report_to=[tensorboard, wandb]",
                "run.name=no",
                "trainer.args.eval_strategy=",
                "model.template_args.enable_thinking=false",
                "rollouts.sampling={max_tokens: 7}",
                'rollouts.sampling.stop=["a=b"]',
            ],
        )
        assert recipe.trainer.args == {"learning_rate": 1e-6, "eval_strategy": None}
        assert recipe.rewards[0].weight == 2
        assert recipe.run.report_to == ["tensorboard", "wandb"]
        assert recipe.run.name == "no"
        assert recipe.model.template_args == {"enable_thinking": False}
        assert recipe.rollouts.sampling.max_tokens == 7
        assert recipe.rollouts.sampling.stop == ["a=b"]

    def test_the_short_form_of_an_engine_takes_arguments(self, write):
        recipe = load(write(TEXT), ["rollouts.engine=vllm-server", 'rollouts.engine.with.urls=["http://a"]'])
        assert recipe.rollouts.engine.use == "vllm-server"
        assert recipe.rollouts.engine.with_ == {"urls": ["http://a"]}

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("run.seed", 'override "run.seed": should be key.path=value, for example trainer.args.learning_rate=1e-5'),
            ("=1", 'override "=1": should be key.path=value, for example trainer.args.learning_rate=1e-5'),
            ("run..seed=1", 'override "run..seed=1": should be key.path=value, for example trainer.args.learning_rate=1e-5'),
            ("rewards.2.weight=1", 'override "rewards.2.weight=1": rewards has 2 items (0 to 1), there is no 2'),
            ("rewards.weight=1", 'override "rewards.weight=1": rewards is a list; give an index, for example rewards.0'),
            ("rewards.-1.weight=1", 'override "rewards.-1.weight=1": rewards is a list; give an index, for example rewards.0'),
            ("evaluation.0.limit=1", 'override "evaluation.0.limit=1": there is no evaluation in the recipe, so no item 0'),
            ("run.name.x=1", 'override "run.name.x=1": run.name is text "demo", it has no key x'),
            ("run.sede=1", 'override "run.sede=1": run.sede: unknown key; did you mean "seed"?'),
            ("rum.seed=1", 'override "rum.seed=1": rum: unknown key; did you mean "run"?'),
            ("run.seed=x", 'override "run.seed=x": run.seed: should be a whole number, got text "x"'),
            ("run.seed=[1", 'override "run.seed=[1":1: not valid YAML: expected \',\' or \']\', but got \'<stream end>\' (while parsing a flow sequence)'),
            ("run.seed=1e999", 'override "run.seed=1e999":1: 1e999 is too large for a number'),
            ("extends=x", 'override "extends=x": `extends` belongs in the file, it cannot be overridden'),
            ("trainer.args.seed=1", 'override "trainer.args.seed=1": trainer.args.seed: belongs in run.seed'),
            ("a" + ".b" * 30 + "=1", 'override "' + "a" + ".b" * 30 + '=1": nested deeper than 20 levels'),
        ],
    )  # fmt: skip
    def test_wrong_ones(self, write, override, message):
        assert mistake(write(TEXT), [override]) == message

    def test_words_of_a_command_line(self):
        assert parse_value("1e-6", "--with a") == 1e-6
        assert parse_value("[a, 1]", "--with a") == ["a", 1]
        with pytest.raises(Mistake, match=r"^--with a:1: not valid YAML"):
            parse_value("[", "--with a")


class TestExtends:
    def test_mappings_merge_lists_are_replaced_and_later_wins(self, write):
        write(TEXT, "base.yaml")
        write("trainer: {args: {learning_rate: 2e-3, beta: 0.1}}\nrun: {seed: 5}\n", "more.yaml")
        write("extends: [base.yaml, more.yaml]\nrewards: [{use: 'm:f'}]\nrun: {name: child}\n", "child.yaml")
        recipe = load("child.yaml", ["trainer.args.beta=0.2"])
        assert recipe.trainer.args == {"learning_rate": 2e-3, "beta": 0.2}
        assert [r.use for r in recipe.rewards] == ["m:f"]
        assert (recipe.run.name, recipe.run.seed) == ("child", 5)

    def test_a_mistake_names_the_file_it_is_in(self, write):
        write(TEXT.replace("r: 16", "r: 0"), "sub/base.yaml")
        write("extends: sub/base.yaml\nrun: {name: child}\n", "child.yaml")
        assert mistake("child.yaml") == "sub/base.yaml:2: adapter.r: should be at least 1, got 0"
        write("extends: sub/base.yaml\nadapter: {r: -1}\n", "child.yaml")
        assert mistake("child.yaml") == "child.yaml:2: adapter.r: should be at least 1, got -1"

    def test_a_changed_source_does_not_inherit_arguments(self, write):
        write(TEXT, "base.yaml")
        write("extends: base.yaml\ndata: {train: {path: a.jsonl}}\nmodel: {name: other}\n", "child.yaml")
        train = load("child.yaml").data.train
        assert (train.use, train.path, train.with_) == (None, "a.jsonl", {})
        write("extends: base.yaml\ndata: {train: {limit: 5}}\n", "child.yaml")
        assert load("child.yaml").data.train.with_ == {"n": 100}

    def test_the_shelf_can_be_extended_from_anywhere(self, write):
        recipe = load(write("extends: arithmetic_grpo.yaml\nrun: {name: mine}\n"))
        assert recipe.run.name == "mine"
        assert recipe.trainer.algorithm == "grpo"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("extends: nothing.yaml\n", 'recipe.yaml:1: extends: no file "nothing.yaml" (looked in '),
            ("run: {name: x}\nextends: [base.yaml, recipe.yaml]\n", "recipe.yaml:2: extends.1: recipe.yaml extends this file in turn; break the circle"),
            ("extends: 5\n", "recipe.yaml:1: extends: should be a file name or a list of them, got 5"),
            ("extends: [[a]]\n", "recipe.yaml:1: extends.0: should be a file name or a list of them, got a list"),
            ("extends: basee.yaml\n", '; did you mean "base.yaml"?'),
            ("extends: circle.yaml\n", "circle.yaml:1: extends: recipe.yaml extends this file in turn; break the circle"),
        ],
    )  # fmt: skip
    def test_wrong_ones(self, write, text, message):
        write(TEXT, "base.yaml")
        write("extends: recipe.yaml\n", "circle.yaml")
        assert message in mistake(write(text))

    def test_an_avalanche_of_files_is_stopped(self, write):
        for i in range(12):
            write(f"extends: [f{i + 1}.yaml, f{i + 1}.yaml]\n", f"f{i}.yaml")
        write(TEXT, "f12.yaml")
        assert "more than" in mistake("f0.yaml")


class TestFilesNamedInRecipes:
    def test_beside_the_recipe_first_then_the_working_directory(self, write, tmp_path):
        text = TEXT.replace("use: rewards.math:correct", "use: mine.py:f")
        write("", "mine.py")
        assert load(write(text, "sub/r.yaml")).rewards[0].use == f"{tmp_path}/mine.py:f"
        write("", "sub/mine.py")
        assert load("sub/r.yaml").rewards[0].use == f"{tmp_path}/sub/mine.py:f"

    def test_relative_to_the_file_that_says_so(self, write, tmp_path):
        write(TEXT.replace("use: rewards.math:correct", "use: mine.py:f"), "sub/base.yaml")
        write("", "sub/mine.py")
        assert load(write("extends: sub/base.yaml\n")).rewards[0].use == f"{tmp_path}/sub/mine.py:f"

    def test_everywhere_that_an_import_path_may_stand(self, write, valid, tmp_path):
        for i in range(6):
            write("", f"f{i}.py")
        valid["rollouts"] = {"engine": {"use": "f0.py:E"}, "strategy": "f1.py:S"}
        valid["data"]["train"] = {"use": "f2.py:rows"}
        valid["trainer"]["algorithm"] = "f3.py:T"
        valid["evaluation"][0]["benchmark"] = "f4.py:b"
        valid["model"] = {"name": "f5.py:m"}
        recipe = load(write(valid))
        found = [recipe.rollouts.engine.use, recipe.rollouts.strategy, recipe.data.train.use, recipe.trainer.algorithm,
                 recipe.evaluation[0].benchmark, recipe.model.name]  # fmt: skip
        assert [f.partition(":")[0] for f in found] == [f"{tmp_path}/f{i}.py" for i in range(6)]


def test_a_wrong_recipe_is_found_without_torch_and_quickly(write, tmp_path):
    """In a fresh interpreter. Three quarters of a second would be torch alone; the bound is on modules, not on time."""
    write(TEXT.replace("weight: 0.5", "wieght: 0.5"))
    code = (
        "import sys\n"
        "from posttrain.errors import Mistake\n"
        "from posttrain.recipe import load\n"
        "try: load('recipe.yaml', ['run.seed=1'])\n"
        "except Mistake as mistake: print(mistake)\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'accelerate', 'datasets', 'numpy', 'vllm', 'sympy'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        'recipe.yaml:11: rewards.1.wieght: unknown key; did you mean "weight"?',
        "[]",
    ], done.stderr


@pytest.mark.parametrize("name", ["~nouser/x", "~nouser/x.py:f", "x" * 5000, f"{'x' * 5000}.py:f"])
@pytest.mark.parametrize(
    "path",
    [("model", "name"), ("model", "chat_template"), ("adapter", "start_from"), ("data", "train", "path"), ("rewards", 0, "use"),
     ("rollouts", "engine"), ("trainer", "algorithm"), ("evaluation", 0, "path"), ("run", "directory"), ("extends",)],
    ids=lambda p: ".".join(map(str, p)),
)  # fmt: skip
def test_what_cannot_be_the_name_of_a_file_is_one_line(path, name):
    recipe = json.loads((Path(__file__).parent / "valid.json").read_text())
    here = recipe
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = name
    if path[:2] == ("data", "train"):
        del here["use"]
    with pytest.raises(Mistake) as told:
        load(recipe)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400
