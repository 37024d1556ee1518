"""The text around a prompt: does it lead up to the answer, and does the answer's end exist?"""

from __future__ import annotations

import re
from typing import Any

from posttrain import models
from posttrain.findings import Finding, bad, good, idle
from posttrain.preflight.scene import Scene
from rollouts.prompts import encode

SAID = "posttrain's answer"
_THOUGHT = re.compile(
    r"[<\[](?P<tag>[\w:|]*think[\w:|]*)[>\]].*?[<\[]/(?P=tag)[>\]]\s*|[<\[]/?[\w:|]*think[\w:|]*[>\]]\s*",
    re.I | re.DOTALL,
)
"""A thinking span that a template writes, or one of its marks: who writes it, template or policy, differs by model."""


def template_leads_up(scene: Scene) -> Finding:
    """What the template writes before an assistant's answer is what the prompt ends with."""
    rows = [row for row in scene.rows if not isinstance(row["prompt"], str)]
    if not rows:
        return idle("plain-text prompts: no template")
    for row in rows:
        prompt = _render(scene, row["prompt"], add_generation_prompt=True)
        whole = _render(scene, [*row["prompt"], {"role": "assistant", "content": SAID}])
        before, found, _ = whole.rpartition(SAID)
        if not found:
            return bad(
                f"the template does not show an assistant's answer (row {row.get('row_id')})",
                "give model.chat_template",
            )
        if (missing := _missing(scene, _THOUGHT.sub("", prompt), _THOUGHT.sub("", before))) is not None:
            return bad(
                f"the prompt ends {_end(prompt)!r}, but the template writes {missing!r} before an answer (row {row.get('row_id')})",
                "give a template whose add_generation_prompt ends where the answer starts (model.chat_template)",
            )
    return good(f"{len(rows)} prompts end where the answer starts: {_end(prompt)!r}")


def _missing(scene: Scene, prompt: str, before: str) -> str | None:
    """What stands between the prompt and the answer; None where nothing is amiss."""
    if prompt == before:
        return None
    if not before.startswith(prompt):
        shared = next((i for i, (a, b) in enumerate(zip(prompt, before, strict=False)) if a != b), 0)
        return before[max(shared - 20, 0) :][-60:]
    rest = before[len(prompt) :]
    # [INST] ... [/INST] and its like: the user's turn itself ends where the answer starts, but for a blank.
    if not rest.strip() and not prompt[-1:].isspace() and scene.tokenizer.chat_template and _no_header(scene):
        return None
    special = {str(token) for token in scene.tokenizer.added_tokens_decoder.values()}
    # Channels (gpt-oss): after the header the policy itself says which kind of message comes.
    if not _no_header(scene) and any(rest.startswith(token) for token in special):
        return None
    return rest


def _no_header(scene: Scene) -> bool:
    """True if add_generation_prompt adds nothing at all."""
    probe = [{"role": "user", "content": "x"}]
    try:
        return _render(scene, probe, add_generation_prompt=True) == _render(scene, probe)
    except Exception:  # a template that wants another chat
        return False


def _render(scene: Scene, messages: Any, **arguments: Any) -> str:
    return str(scene.tokenizer.apply_chat_template(messages, tokenize=False, **{**scene.template_args, **arguments}))


def _end(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"...{text[-most:]}"


def one_bos(scene: Scene) -> Finding:
    """A prompt begins with the BOS once, or not at all."""
    bos = scene.tokenizer.bos_token_id
    if bos is None:
        return idle("the tokenizer has no BOS")
    begun = 0
    for row in scene.rows:
        ids = encode(scene.tokenizer, row["prompt"], **scene.template_args)
        if ids[:2] == [bos, bos]:
            return bad(
                f"row {row.get('row_id')} begins with {scene.tokenizer.bos_token!r} twice",
                "take it out of the prompts, the template, or the tokenizer's post-processor",
            )
        begun += ids[:1] == [bos]
    return good(f"{begun} of {len(scene.rows)} prompts begin with {scene.tokenizer.bos_token!r}, none twice")


def eos_and_pad(scene: Scene) -> Finding:
    """There is an EOS, padding is another token, and a finished answer is known as such by all who ask."""
    tokenizer = scene.tokenizer
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if eos is None:
        return bad("the tokenizer has no EOS", "set eos_token in the model's tokenizer_config.json")
    if pad is None or pad == eos:
        what = "there is no pad token" if pad is None else f"pad and EOS are one token, {tokenizer.eos_token!r}"
        return bad(
            f"{what}: code that tells padding by its id takes an answer's end for padding",
            "give the tokenizer another pad token (tokenizer.pad_token = ..., save_pretrained), or set preflight: warn",
        )
    told = f"EOS {tokenizer.eos_token!r}, pad {tokenizer.pad_token!r}"
    if all(isinstance(row["prompt"], str) for row in scene.rows):
        return good(told)
    end = models.end_of_turn(tokenizer)
    if end is None:
        return bad(
            f"{told}; but the template closes an assistant's turn with no special token",
            "give a template that ends turns with the EOS (model.chat_template)",
        )
    name = tokenizer.convert_ids_to_tokens(end)
    ends = _ends(scene)
    if end not in ends:
        known = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(list(ends))))
        return bad(
            f"the template ends turns with {name!r}, the engine stops at {known} only",
            "give the engine that token (eos_ids), or a template that ends turns with the EOS",
        )
    return good(f"{told}; the template ends turns with {name!r}")


def _ends(scene: Scene) -> tuple[int, ...]:
    spec = getattr(scene.parts.engine, "spec", None)
    if spec is not None:
        return tuple(spec.eos_ids)
    return models.eos_ids(scene.tokenizer, models.load_generation_config(scene.recipe.model))
