"""Parameters of a model and of an adapter, and an estimate of the memory that training them takes on one device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from posttrain.plan.batches import DEFAULTS, OnlineGeometry, geometry


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder-only transformer of the Llama family (grouped-query attention, gated MLP, RMSNorm)."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm of queries and keys, per head (Qwen3)."""
    exact: bool = True
    """False: a family that is not known here, counted as if it were Llama's."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers configuration (or a mapping with its keys)."""

        def get(*names: str, default: Any = None) -> Any:
            for name in names:
                value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
                if value is not None:
                    return value
            return default

        family = get("model_type", default="")
        heads, hidden = get("num_attention_heads", "n_head"), get("hidden_size", "n_embd")
        biased = bool(get("attention_bias", default=False))
        return cls(
            vocab=get("vocab_size"),
            hidden=hidden,
            layers=get("num_hidden_layers", "n_layer"),
            heads=heads,
            kv_heads=get("num_key_value_heads", default=heads),
            head_dim=get("head_dim", default=hidden // heads),
            intermediate=get("intermediate_size", "n_inner", default=4 * hidden),
            tied=bool(get("tie_word_embeddings", default=False)),
            qkv_bias=family == "qwen2" or biased,
            output_bias=family != "qwen2" and biased,
            mlp_bias=bool(get("mlp_bias", default=False)) and family == "llama",
            qk_norm=family == "qwen3",
            exact=family in ("llama", "qwen2", "qwen3", "mistral"),
        )

    def linears(self) -> dict[str, tuple[int, int, bool]]:
        """The linear layers of one block: name → (inputs, outputs, bias)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (self.hidden, q, self.qkv_bias),
            "self_attn.k_proj": (self.hidden, kv, self.qkv_bias),
            "self_attn.v_proj": (self.hidden, kv, self.qkv_bias),
            "self_attn.o_proj": (q, self.hidden, self.output_bias),
            "mlp.gate_proj": (self.hidden, self.intermediate, self.mlp_bias),
            "mlp.up_proj": (self.hidden, self.intermediate, self.mlp_bias),
            "mlp.down_proj": (self.intermediate, self.hidden, self.mlp_bias),
        }

    @property
    def per_layer(self) -> int:
        """Parameters of one block: its linear layers, two norms of `hidden`, and the norms of queries and keys."""
        linear = sum(i * o + o * bias for i, o, bias in self.linears().values())
        return linear + 2 * self.hidden + 2 * self.head_dim * self.qk_norm

    @property
    def parameters(self) -> int:
        """All parameters: embedding, blocks, last norm, and the head where it is not the embedding."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.layers * self.per_layer + self.hidden


def adapter_parameters(shape: Shape, adapter: Any) -> int:
    """Parameters of a LoRA adapter: r × (inputs + outputs) of every layer it is put on (Hu et al. 2021, arXiv 2106.09685),
    and one magnitude an output with DoRA (Liu et al. 2024, arXiv 2402.09353). `adapter`: attributes of PEFT's `LoraConfig`.
    """
    total = 0
    targets = adapter.target_modules
    for layer in range(shape.layers):
        for name, (inputs, outputs, _) in shape.linears().items():
            if _is_target(f"model.layers.{layer}.{name}", targets, _layers_of(adapter)):
                total += adapter.r * (inputs + outputs) + outputs * bool(getattr(adapter, "use_dora", False))
    return total


def _layers_of(adapter: Any) -> set[int] | None:
    chosen = getattr(adapter, "layers_to_transform", None)
    return None if chosen is None else {chosen} if isinstance(chosen, int) else set(chosen)


def _is_target(name: str, targets: str | list[str], layers: set[int] | None) -> bool:
    """PEFT's rule: a list matches whole last parts of a name, text is a regular expression for all of it."""
    if isinstance(targets, str):
        if targets == "all-linear":
            return layers is None or int(name.split(".")[2]) in layers
        return re.fullmatch(targets, name) is not None
    if not any(name == target or name.endswith(f".{target}") for target in targets):
        return False
    return layers is None or int(name.split(".")[2]) in layers


BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32768
"""Tile of TRL's fused LM head: whole logits are never held."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. What is alive at the same time: weights, optimiser, and the larger of (gradients,
    activations, head) while training and (cache) while sampling."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    head: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + max(self.gradients + self.activations + self.head, self.cache)

    def as_dict(self) -> dict[str, int]:
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "total": self.total}

    def readable(self) -> dict[str, str]:
        return {name: size(value) for name, value in self.as_dict().items()}


def size(number: int) -> str:
    """`1.5 GiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def memory(
    shape: Shape,
    *,
    adapter: int | None,
    dtype: str,
    autocast: bool,
    sequences: int,
    tokens: int,
    checkpointing: bool,
    optim: str = "adamw_torch",
    shards: int = 1,
    sampled_at_once: int = 0,
    sampled_tokens: int = 0,
) -> Memory:
    """An estimate of peak memory on one device.

    - weights: parameters × bytes of `dtype` / shards, and the adapter in float32 (PEFT holds it so over a 16-bit base).
    - gradients: as the trained parameters. Optimiser: two moments of AdamW in the trained parameters' type
      (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3), or what `optim` keeps.
    - activations: what autograd keeps for the backward pass; see `activations`.
    - head: logits of one tile of TRL's fused LM head, forward and gradient, and the final hidden states.
    - cache: keys and values, 2 × layers × kv_heads × head_dim a token (Pope et al. 2022, arXiv 2211.05102).

    Args:
        adapter: its parameters; None = full fine-tuning.
        dtype: type the weights are held in. `autocast`: computed in 16 bits (trainer.args.bf16 or fp16).
        sequences: sequences of one forward pass. `tokens`: length of the longest, prompt and completion.
        checkpointing: keep each block's input alone, and one block's activations at a time.
        shards: processes that weights, gradients and optimiser are spread over (FSDP, ZeRO-3); 1 = every one has all.
        sampled_at_once: sequences in the cache of an engine that lives in this process; 0 = it lives elsewhere.
        sampled_tokens: length of the longest of those, where prompts are longer for the engine (scaffolds); 0 = `tokens`.
    """
    width = BYTES[dtype]
    trained, trained_width = (shape.parameters, width) if adapter is None else (adapter, 4)
    weights = (shape.parameters * width + (0 if adapter is None else adapter * 4)) // shards
    kept = activations(
        shape,
        sequences * tokens,
        width=width,
        autocast=autocast,
        adapted=adapter is not None,
        checkpointing=checkpointing,
    )
    rows = min(sequences * tokens, HEAD_TOKENS)
    head = 2 * rows * min(shape.vocab, HEAD_VOCABULARY) * 4 + sequences * tokens * shape.hidden * 4
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * width * sampled_at_once * max(tokens, sampled_tokens)
    return Memory(
        weights=weights,
        gradients=trained * trained_width // shards,
        optimiser=int(trained * _moments(optim, trained_width)) // shards,
        activations=kept,
        head=head,
        cache=cache,
    )


def _moments(optim: str, width: int) -> float:
    """Bytes an optimiser keeps for one parameter."""
    if "8bit" in optim:
        return 1 if "lion" in optim else 2
    if "4bit" in optim:
        return 1
    if optim.startswith(("sgd", "adafactor", "lomo", "adalomo")):
        return 0
    return width if optim.startswith(("lion", "rmsprop", "adagrad")) else 2 * width


def activations(shape: Shape, tokens: int, *, width: int, autocast: bool, adapted: bool, checkpointing: bool) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of `tokens` tokens.

    Counted tensor by tensor for transformers' Llama-style block with an attention kernel that keeps no T × T matrix, in
    the manner of Korthikanti et al. 2022 (arXiv 2205.05198, section 4), whose block is GPT's. In one block, a token keeps:

    - two RMSNorms, computed in float32: the normalised input and the input itself, 2 × 2 × hidden × 4, and the product
      with the weight's input, 2 × hidden;
    - the inputs of the linear layers: hidden (q, k, v share it; it is the norm's output, counted there), heads × head_dim
      (o), hidden (gate, up; counted), intermediate (down);
    - rotary embedding and attention: q, k, v as the kernel got them and its output (the input of o, counted above);
    - the gated MLP: gate, up and SiLU(gate), 3 × intermediate.

    A float32 adapter over a 16-bit base keeps each input once more, cast to float32 (PEFT), unless autocast is on.
    Autocast over float32 weights keeps the 16-bit copies of the weights as well.

    Args:
        width: bytes of a weight. `autocast`: computed in 16 bits whatever the width.
    """
    compute = 2 if autocast else width
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * (2 * shape.hidden * 4 + shape.hidden * compute)
    attention = (q + 2 * kv + q) * compute
    mlp = 4 * shape.intermediate * compute
    casts = (2 * shape.hidden + q + shape.intermediate) * 4 if adapted and width < 4 and not autocast else 0
    block = tokens * (norms + attention + mlp + casts)
    if compute < width:
        block += sum(i * o for i, o, _ in shape.linears().values()) * compute
    if checkpointing:
        return shape.layers * tokens * shape.hidden * compute + block
    return shape.layers * block


def memory_of(
    recipe: Any,
    config: Any,
    arguments: Mapping[str, Any],
    processes: int,
    *,
    prompt_tokens: int | None = None,
    seen_tokens: int = 0,
    shards: int = 1,
) -> Memory:
    """`memory` of a recipe.

    Args:
        recipe: a checked recipe. `config`: the model's transformers configuration, or a mapping with its keys.
        arguments: of the TRL configuration class (`trl_arguments`).
        prompt_tokens: the longest prompt of the data; absent = the recipe's bound, else 512.
        seen_tokens: the longest prompt with a scaffold, which the engine alone sees; 0 = there is none.
        shards: processes that share weights and optimiser (FSDP, ZeRO-3); 1 = none.
    """
    args = {**DEFAULTS, **{k: v for k, v in arguments.items() if v is not None}}
    shape = Shape.of(config)
    online = "max_completion_length" in arguments
    prompt = prompt_tokens or recipe.data.train.max_prompt_tokens or 512
    tokens = prompt + args["max_completion_length"] if online else args.get("max_length") or 2 * prompt
    if recipe.model.max_length is not None:
        tokens = min(tokens, recipe.model.max_length)
    engine = recipe.rollouts.engine
    inside = online and (engine if isinstance(engine, str) else engine.use) == "transformers"
    counts = geometry(arguments, 10**9, processes, recipe.trainer.algorithm)
    sampled = counts.rollouts_per_generation // processes if isinstance(counts, OnlineGeometry) and inside else 0
    return memory(
        shape,
        adapter=None if recipe.adapter is None else adapter_parameters(shape, recipe.adapter),
        dtype=recipe.model.dtype,
        autocast=bool(args.get("bf16", True) or args.get("fp16")),
        sequences=args["per_device_train_batch_size"] * (2 if recipe.trainer.algorithm == "dpo" else 1),
        tokens=tokens,
        checkpointing=bool(args.get("gradient_checkpointing", True)),
        optim=str(args.get("optim", "adamw_torch_fused")),
        shards=shards,
        sampled_at_once=sampled,
        sampled_tokens=seen_tokens + args["max_completion_length"] if seen_tokens else 0,
    )
