"""From `model:` in a recipe to a config, a tokenizer, weights, and what a sampler must know about their ends.

Code that came with a model runs only if this launch's command line says so (`trust_remote_code`), and weights are read from
safetensors only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import Mistake
from posttrain.imports import Use

if TYPE_CHECKING:
    from posttrain.recipe.schema import Model

MODELS = {
    "miniature/arithmetic": "posttrain.miniature.arithmetic:base",
    "miniature/behaviours": "posttrain.miniature.behaviours:base",
}
"""Short names: functions that return the directory of a model."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
PADS = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|vision_pad|>", "<unk>", "<|endoftext|>")
"""Tokens that pad where a tokenizer names none of its own, in the order in which they are tried."""

log = logging.getLogger("posttrain.models")

_allowed = False


def trust_remote_code(given: bool) -> None:
    """Let code that came with a model run in this process, or not (which is how it begins). Commands call this with what
    their command line says; nothing else does."""
    global _allowed
    _allowed = given


def allows_code() -> bool:
    """What `trust_remote_code` was last told."""
    return _allowed


def locate(model: Model) -> str:
    """The directory of a model, or its hub id. A miniature is trained first if need be.

    Raises:
        Mistake: neither a directory with a model, nor a short name, an import path or something like a hub id.
    """
    name = model.name
    here = Path(name).expanduser()
    if name.strip() and here.is_dir():
        _refuse_arguments(model)
        return _checked(here)
    if path := MODELS.get(name, name if ":" in name else None):
        made = Use(path, dict(model.with_), "model").build()
        made = made() if callable(made) else made
        if not isinstance(made, (str, Path)) or not Path(made).expanduser().is_dir():
            raise Mistake(f"model.name: {path} must return the directory of a model; it returned {made!r:.80}")
        return _checked(Path(made).expanduser())
    _refuse_arguments(model)
    if near := get_close_matches(name, MODELS, n=1, cutoff=0.8):
        raise Mistake(f'model.name: no model "{name}"; did you mean "{near[0]}"?')
    if name.startswith("miniature/"):
        raise Mistake(f'model.name: no miniature "{name}"; there is {", ".join(MODELS)}')
    if here.is_file():
        raise Mistake(f"model.name: {name} is a file; give the directory that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or not HUB_ID.fullmatch(name):
        raise Mistake(f"model.name: no directory {name} (looked in {Path.cwd()})")
    return name


def _refuse_arguments(model: Model) -> None:
    if model.with_:
        raise Mistake(f"model.with: {model.name} is no function, so it takes no arguments")


def _checked(directory: Path) -> str:
    if not (directory / "config.json").is_file():
        if (directory / "adapter_config.json").is_file():
            raise Mistake(
                f"model.name: {directory} holds an adapter, not a model; name its base model here and the adapter as "
                "adapter.start_from (or --adapter)"
            )
        raise Mistake(f"model.name: {directory} holds no config.json, so it is no model saved by transformers")
    if pickles := pickled_weights(directory):
        raise Mistake(
            f"model.name: the weights in {directory} are pickled ({pickles[0]}), and a pickle can run code; save them as "
            "safetensors (save_pretrained does), where you trust them"
        )
    return str(directory.resolve())


def pickled_weights(directory: Path) -> list[str]:
    """Names of the pickled weights in a folder that holds none as safetensors, sorted."""
    if any(directory.glob("*.safetensors")):
        return []
    kinds = ("pytorch_model*.bin", "model*.bin", "adapter_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
    return sorted({file.name for kind in kinds for file in directory.glob(kind)})


@contextmanager
def _one_line(model: Model, what: str) -> Iterator[None]:
    """What transformers says when a model cannot be loaded, as one line about this recipe."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        hint = ""
        if "trust_remote_code" in text:
            text, hint = "it needs code of its own", "; read that code, and give --trust-remote-code to let it run"
        elif Path(model.name).expanduser().is_dir() or model.name in MODELS or ":" in model.name:
            pass
        elif "connect to" in text:
            text, hint = "the hub cannot be reached and it is not in the local cache", "; is the name right?"
        elif isinstance(error, OSError):
            hint = "; is the name right, is there a network, is a token needed (`hf auth login`)?"
        raise Mistake(f"model.name: cannot load the {what} of {model.name}: {text[:240]}{hint}") from error


def load_config(model: Model) -> Any:
    """transformers' config of a model; of a composite one, that of its text part."""
    from transformers import AutoConfig

    place = locate(model)
    with _one_line(model, "config"):
        config = AutoConfig.from_pretrained(place, revision=model.revision, trust_remote_code=_allowed)
    return config.get_text_config()


def load_generation_config(model: Model) -> Any:
    """The model's generation config; an empty one where it has none."""
    from transformers import GenerationConfig

    place = locate(model)
    try:
        return GenerationConfig.from_pretrained(place, revision=model.revision)
    except OSError:
        config = load_config(model)
        return GenerationConfig(eos_token_id=getattr(config, "eos_token_id", None))


def load_tokenizer(model: Model) -> Any:
    """The tokenizer: padding on the left, a pad token that is not the EOS where the vocabulary has one to offer, and
    the recipe's chat template if it gives one.

    Raises:
        Mistake: no tokenizer there, a template file that is missing or broken.
    """
    from transformers import AutoTokenizer

    place = locate(model)
    with _one_line(model, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place, revision=model.revision, trust_remote_code=_allowed)
    # Where there are no files of a tokenizer, transformers makes one that knows nothing but its special tokens.
    if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_decoder):
        raise Mistake(f"model.name: {model.name} comes without a tokenizer")
    tokenizer.padding_side = "left"
    _pad(tokenizer, model.name)
    if model.chat_template is not None:
        tokenizer.chat_template = _template(model.chat_template)
    return tokenizer


def _pad(tokenizer: Any, name: str) -> None:
    ends = tokenizer.eos_token_id
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != ends:
        return
    vocabulary = tokenizer.get_vocab()
    if found := next((t for t in PADS if t in vocabulary and vocabulary[t] != ends), None):
        tokenizer.pad_token = found
        return
    if ends is None:
        raise Mistake(f"model.name: the tokenizer of {name} has neither a pad nor an EOS token")
    tokenizer.pad_token = tokenizer.eos_token
    log.warning(
        "%s: no token but the EOS (%s) can pad. Finish reasons and masks do not depend on that here; code of yours "
        "that tells padding by its id will take an EOS for padding.",
        name,
        tokenizer.eos_token,
    )


def _template(path: str) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    file = Path(path).expanduser()
    try:
        if file.exists() and not file.is_file():
            raise Mistake(f"model.chat_template: {path} is not a file")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise Mistake(f"model.chat_template: cannot read {path}: {reason}") from error
    try:
        _compile_jinja_template(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        at = f", line {line}" if line else ""
        raise Mistake(f"model.chat_template: {path}{at}: {' '.join(str(error).split())}") from error
    return text


def load_model(model: Model, *, device: Any = None) -> Any:
    """The weights, as a causal language model in `model.dtype`, on `device` (absent = where transformers puts them).

    Raises:
        Mistake: no such model, no safetensors, an attention that is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    place = locate(model)
    arguments: dict[str, Any] = {"dtype": getattr(torch, model.dtype), "revision": model.revision}
    if model.attention is not None:
        arguments["attn_implementation"] = model.attention
    with _one_line(model, "weights"):
        loaded = AutoModelForCausalLM.from_pretrained(
            place, trust_remote_code=_allowed, use_safetensors=True, **arguments
        )
    return loaded if device is None else loaded.to(device)


def eos_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Every token that ends a completion: of the generation config, of the tokenizer, and what the chat template
    puts behind an assistant's turn. Each source alone is wrong for some models."""
    named = getattr(generation_config, "eos_token_id", None)
    found = [*named] if isinstance(named, (list, tuple)) else [named]
    found += [tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def end_of_turn(tokenizer: Any) -> int | None:
    """The special token with which the chat template closes an assistant's turn; None if it closes it with none."""
    if not tokenizer.chat_template:
        return None
    said = "posttrain probe"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": said}], tokenize=False
        )
    except Exception:  # templates raise what they like; one that refuses this chat tells us nothing
        return None
    _, found, tail = text.rpartition(said)
    if not found or not tail.strip():
        return None
    first = tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"][:1]
    special = {int(i) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return first[0] if first and first[0] in special | set(tokenizer.all_special_ids) else None


def max_length(model: Model, config: Any) -> int:
    """Longest prompt and completion together, in tokens: the recipe's, else the config's.

    Raises:
        Mistake: the recipe asks for more than the model can, or neither says.
    """
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if model.max_length is None:
        if not isinstance(most, int) or most < 1:
            raise Mistake("model.max_length: the model's config names no longest length; set it here")
        return most
    if isinstance(most, int) and 0 < most < model.max_length:
        raise Mistake(f"model.max_length: {model.max_length} is more than the {most} positions that the model has")
    return model.max_length


@dataclass(frozen=True)
class Description:
    """The size of a model, exactly, without its weights."""

    parameters: int
    """Shared ones (tied embeddings) counted once."""
    embeddings: int
    """Of these, in input and output embeddings."""
    vocabulary: int
    linear: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Every linear layer: full name → (outputs, inputs)."""


def describe(config: Any) -> Description:
    """Count the parameters of the model that `config` describes, built on the meta device: no memory, no download."""
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    plain = copy.deepcopy(config)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(plain, attn_implementation="eager", trust_remote_code=_allowed)
    built.tie_weights()
    ends = {
        id(p): p for m in (built.get_input_embeddings(), built.get_output_embeddings()) if m for p in m.parameters()
    }
    return Description(
        parameters=sum(p.numel() for p in built.parameters()),
        embeddings=sum(p.numel() for p in ends.values()),
        vocabulary=int(config.get_text_config().vocab_size),
        linear={
            name: (module.out_features, module.in_features)
            for name, module in built.named_modules()
            if isinstance(module, torch.nn.Linear)
        },
    )
