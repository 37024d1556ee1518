"""Models: found, loaded as asked, measured without weights, and known by every token that ends an answer."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from posttrain import models
from posttrain.errors import Mistake
from posttrain.recipe.schema import Model

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def copied(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def bare(vocabulary: list[str], **special: str):
    """A word-level tokenizer that is not ours."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=vocabulary[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


class TestLocate:
    def test_a_directory_is_itself_wherever_one_stands(self, tiny, monkeypatch):
        monkeypatch.chdir(Path(tiny).parent)
        assert models.locate(Model(name=Path(tiny).name)) == str(Path(tiny).resolve())

    def test_a_hub_id_stays_one(self):
        assert models.locate(Model(name="Qwen/Qwen2.5-1.5B-Instruct")) == "Qwen/Qwen2.5-1.5B-Instruct"
        assert models.locate(Model(name="gpt2")) == "gpt2"

    def test_a_function_of_the_users_is_called_with_its_arguments(self, tiny, tmp_path):
        file = tmp_path / "mine.py"
        file.write_text("def make(which):\n    return which\n")
        model = Model.model_validate({"name": f"{file}:make", "with": {"which": tiny}})
        assert models.locate(model) == str(Path(tiny).resolve())

    def test_short_names_lead_to_functions_that_exist(self):
        from posttrain.imports import load_object

        assert all(callable(load_object(path)) for path in models.MODELS.values())

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("./nowhere", "no directory ./nowhere"),
            ("/nowhere/at/all", "no directory"),
            ("a b", "no directory"),
            ("", "no directory"),
            ("miniature/arithmetics", 'did you mean "miniature/arithmetic"'),
            ("miniature/cooking", "there is miniature/arithmetic"),
            ("posttrain.nothing:base", "no module"),
            ("posttrain.miniature.arithmetic:SCHEDULE", "must return the directory"),
        ],
    )
    def test_mistakes(self, name, says):
        with pytest.raises(Mistake, match="model") as caught:
            models.locate(Model(name=name))
        assert says in line(caught)

    def test_an_adapter_or_an_empty_directory_is_no_model(self, tmp_path):
        with pytest.raises(Mistake, match=r"no config\.json"):
            models.locate(Model(name=str(tmp_path)))
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(Mistake, match="holds an adapter"):
            models.locate(Model(name=str(tmp_path)))
        (tmp_path / "file").write_text("")
        with pytest.raises(Mistake, match="is a file"):
            models.locate(Model(name=str(tmp_path / "file")))

    def test_arguments_for_what_takes_none(self, tiny):
        with pytest.raises(Mistake, match=r"model\.with"):
            models.locate(Model.model_validate({"name": tiny, "with": {"seed": 1}}))


class TestHub:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch, tmp_path):
        import huggingface_hub.constants as constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    @pytest.mark.parametrize("load", [models.load_config, models.load_tokenizer, models.load_model])
    def test_an_unknown_id_is_one_line(self, load):
        with pytest.raises(Mistake, match="posttrain-tests/no-such-model") as caught:
            load(Model(name="posttrain-tests/no-such-model"))
        assert "is the name right" in line(caught)


class TestTokenizer:
    def test_ours(self, tiny):
        tokenizer = models.load_tokenizer(Model(name=tiny))
        assert tokenizer.padding_side == "left"
        assert tokenizer.pad_token == "<|pad|>"

    def test_a_template_of_the_recipe_replaces_the_models(self, tiny, tmp_path):
        file = tmp_path / "template.jinja"
        file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
        tokenizer = models.load_tokenizer(Model(name=tiny, chat_template=str(file)))
        assert tokenizer.apply_chat_template([{"role": "user", "content": "é"}], tokenize=False) == "[é]"

    def test_a_template_that_is_missing_or_broken_is_one_line(self, tiny, tmp_path):
        with pytest.raises(Mistake, match=r"model\.chat_template: cannot read") as caught:
            models.load_tokenizer(Model(name=tiny, chat_template=str(tmp_path / "none.jinja")))
        line(caught)
        file = tmp_path / "broken.jinja"
        file.write_text("a\n{% for m in messages %}\n")
        with pytest.raises(Mistake, match=r"broken\.jinja, line 2|broken\.jinja, line 3") as caught:
            models.load_tokenizer(Model(name=tiny, chat_template=str(file)))
        line(caught)

    def test_no_tokenizer_is_one_line(self, copied):
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (copied / file).unlink()
        with pytest.raises(Mistake, match="tokenizer") as caught:
            models.load_tokenizer(Model(name=str(copied)))
        line(caught)

    def test_padding_is_not_the_eos_where_there_is_another_token_for_it(self):
        tokenizer = bare(["<unk>", "</s>", "<|endoftext|>"], eos_token="</s>", pad_token="</s>")
        models._pad(tokenizer, "some")
        assert tokenizer.pad_token == "<unk>"
        tokenizer = bare(["x", "<|im_end|>", "<|endoftext|>"], eos_token="<|im_end|>")
        models._pad(tokenizer, "some")
        assert tokenizer.pad_token == "<|endoftext|>"

    def test_padding_with_the_eos_is_said(self, caplog):
        tokenizer = bare(["x", "</s>"], eos_token="</s>")
        with caplog.at_level(logging.WARNING):
            models._pad(tokenizer, "some/model")
        assert tokenizer.pad_token == "</s>"
        assert "some/model" in caplog.text

    def test_neither_pad_nor_eos(self):
        with pytest.raises(Mistake, match="neither"):
            models._pad(bare(["x", "y"]), "some/model")


class TestWeights:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_in_the_type_that_was_asked_for(self, tiny, dtype):
        loaded = models.load_model(Model(name=tiny, dtype=dtype))
        assert {p.dtype for p in loaded.parameters()} == {getattr(torch, dtype)}

    def test_attention_and_device(self, tiny):
        loaded = models.load_model(Model(name=tiny, attention="eager"), device="cpu")
        assert loaded.config._attn_implementation == "eager"
        assert loaded.device.type == "cpu"

    def test_an_attention_that_does_not_exist_is_one_line(self, tiny):
        with pytest.raises(Mistake, match="weights") as caught:
            models.load_model(Model(name=tiny, attention="no_such_attention"))
        line(caught)

    def test_without_safetensors_it_is_one_line(self, copied):
        (copied / "model.safetensors").unlink()
        torch.save({}, copied / "pytorch_model.bin")
        with pytest.raises(Mistake, match="safetensors") as caught:
            models.load_model(Model(name=str(copied)))
        line(caught)

    def test_damaged_weights_are_one_line(self, copied):
        (copied / "model.safetensors").write_bytes(b"\x00" * 64)
        with pytest.raises(Mistake, match="cannot load the weights") as caught:
            models.load_model(Model(name=str(copied)))
        line(caught)

    def test_a_damaged_config_is_one_line(self, copied):
        (copied / "config.json").write_text("{")
        with pytest.raises(Mistake, match="cannot load the config") as caught:
            models.load_config(Model(name=str(copied)))
        line(caught)


class TestEnds:
    def test_all_three_sources_count_once_each(self):
        words = ["<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>"]
        tokenizer = bare(words, eos_token="</s>", extra_special_tokens=["<|im_start|>", "<|im_end|>"])
        tokenizer.chat_template = CHATML
        from transformers import GenerationConfig

        assert models.end_of_turn(tokenizer) == 2
        assert set(models.eos_ids(tokenizer, GenerationConfig(eos_token_id=[3, 4]))) == {2, 3, 4}
        assert set(models.eos_ids(tokenizer, GenerationConfig(eos_token_id=3))) == {2, 3, 4}
        assert set(models.eos_ids(tokenizer)) == {2, 4}

    def test_of_the_miniature(self, tiny):
        model = Model(name=tiny)
        tokenizer = models.load_tokenizer(model)
        ids = models.eos_ids(tokenizer, models.load_generation_config(model))
        assert set(tokenizer.convert_ids_to_tokens(list(ids))) == {"<|end|>", "<|endoftext|>"}
        assert tokenizer.pad_token_id not in ids

    @pytest.mark.parametrize(
        "template",
        [
            None,
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}",
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "{{ raise_exception('needs a system turn') }}",
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}</s>{% endif %}{% endfor %}",
        ],
    )
    def test_a_template_that_closes_with_no_special_token_adds_none(self, template):
        tokenizer = bare(["<unk>", "</s>", "user:"], eos_token="</s>")
        tokenizer.chat_template = template
        assert models.end_of_turn(tokenizer) is None
        assert models.eos_ids(tokenizer) == (1,)

    def test_without_a_generation_config_the_models_config_is_asked(self, copied):
        (copied / "generation_config.json").unlink()
        assert models.load_generation_config(Model(name=str(copied))).eos_token_id == [1, 2]


class TestLength:
    def test_the_recipes_or_the_models(self, tiny):
        config = models.load_config(Model(name=tiny))
        assert models.max_length(Model(name=tiny), config) == config.max_position_embeddings == 1024
        assert models.max_length(Model(name=tiny, max_length=100), config) == 100
        with pytest.raises(Mistake, match="2000 is more than the 1024"):
            models.max_length(Model(name=tiny, max_length=2000), config)

    def test_a_config_that_does_not_say(self):
        from transformers import PretrainedConfig

        with pytest.raises(Mistake, match="set it here"):
            models.max_length(Model(name="x"), PretrainedConfig())
        assert models.max_length(Model(name="x", max_length=77), PretrainedConfig()) == 77


class TestDescribe:
    def test_it_counts_what_is_loaded(self, tiny):
        model = Model(name=tiny)
        told = models.describe(models.load_config(model))
        loaded = models.load_model(model)
        assert told.parameters == sum(p.numel() for p in loaded.parameters())
        assert told.vocabulary == loaded.config.vocab_size
        assert told.linear["model.layers.0.mlp.down_proj"] == (64, 384)

    @pytest.mark.parametrize("tied", [True, False])
    def test_published_sizes(self, tied):
        """Qwen2.5-0.5B has 494,032,768 parameters with tied embeddings (its model card says 0.49B)."""
        from transformers import Qwen2Config

        config = Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=tied,
        )  # fmt: skip
        told = models.describe(config)
        table = 151936 * 896
        assert told.parameters == 494_032_768 + (0 if tied else table)
        assert told.embeddings == table * (1 if tied else 2)

    def test_the_config_is_not_changed(self, tiny):
        config = models.load_config(Model(name=tiny))
        before = json.dumps(config.to_dict(), sort_keys=True, default=str)
        models.describe(config)
        assert json.dumps(config.to_dict(), sort_keys=True, default=str) == before
