"""Rows of SFT and DPO, as TRL tokenised them: where the answer starts, and that it ends once."""

from __future__ import annotations

from typing import Any

from posttrain.data.filters import with_tools
from posttrain.findings import Finding, bad, good, idle
from posttrain.preflight.scene import Scene, spread
from rollouts.prompts import encode

LOOKED_AT = 64


def pairs_are_clean(scene: Scene) -> Finding:
    """Of each pair: both answers follow the very ids of the prompt, hold no BOS, end with one EOS, and differ."""
    data = scene.trainer.train_dataset
    if "chosen_ids" not in (getattr(data, "column_names", None) or []):
        return idle("pairs that are not text")
    tokenizer = scene.tokenizer
    looked = spread(len(data), LOOKED_AT)
    for i in looked:
        row = data[i]
        who = f"row {row.get('row_id', i)}"
        asked = encode(tokenizer, row["prompt"], **scene.template_args)
        if (said := _moved(scene, asked, row["prompt_ids"])) is not None:
            return bad(
                f"{who}: {said}",
                "give a template that renders the prompt alike with and without an answer, or end the prompt on a token border",
            )
        for name in ("chosen", "rejected"):
            if (said := _answer(tokenizer, row[f"{name}_ids"])) is not None:
                return bad(f"{who}: its {name} answer {said}", MEND)
        if row["chosen_ids"] == row["rejected_ids"]:
            return bad(f"{who}: chosen and rejected are the same text", "leave such rows out: they have no margin")
    return good(f"{len(looked)} pairs: the prompt's ids are equal in both, one EOS and no BOS in each answer")


def answers_are_clean(scene: Scene) -> Finding:
    """What SFT trains on starts where the prompt ends, holds no BOS and ends with an EOS."""
    data = scene.trainer.train_dataset
    columns = getattr(data, "column_names", None) or []
    if "labels" not in columns or "prompt" not in columns:
        return idle("packed rows, or rows without a prompt of their own")
    looked = spread(len(data), LOOKED_AT)
    for i in looked:
        row = data[i]
        who = f"row {row.get('row_id', i)}"
        trained = [k for k, label in enumerate(row["labels"]) if label != -100]
        if not trained:
            return bad(f"{who}: no token is trained on", "raise model.max_length, or check the completion column")
        asked = encode(scene.tokenizer, row["prompt"], **(dict(scene.template_args) | with_tools(row)))
        # assistant_only_loss may begin later than the prompt ends
        before = row["input_ids"][: trained[0]] if trained[0] < len(asked) else row["input_ids"][: len(asked)]
        if (said := _moved(scene, asked, before)) is not None:
            return bad(
                f"{who}: {said}",
                "give a template that renders the prompt alike with and without an answer, or end the prompt on a token border",
            )
        several = not isinstance(row.get("completion"), str) and len(row.get("completion") or ()) > 1
        if (said := _answer(scene.tokenizer, row["input_ids"][len(asked) :], several=several)) is not None:
            return bad(f"{who}: its answer {said}", MEND)
    return good(f"{len(looked)} rows: training starts where the prompt ends, one EOS and no BOS in each answer")


MEND = "take it out of the data's text (the template or TRL adds what is needed), or mend the template"


def _moved(scene: Scene, asked: list[int], made: list[int]) -> str | None:
    """TRL keeps of a prompt what prompt and answer share; less than all of it means another prompt than the policy will see."""
    if made == asked:
        return None
    shared = next((i for i, (a, b) in enumerate(zip(asked, made, strict=False)) if a != b), min(len(asked), len(made)))
    lost = scene.tokenizer.decode(asked[shared:])
    return f"the prompt's ids change when an answer follows: {lost[:60]!r} is not what stands before the answer"


def _answer(tokenizer: Any, ids: list[int], *, several: bool = False) -> str | None:
    """What is wrong with an answer's end or beginning. `several`: turns, each with an EOS."""
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    ends = ids.count(eos)
    if bos is not None and bos != eos and bos in ids:
        return f"holds the BOS {tokenizer.bos_token!r}"
    if not ends:
        return f"has no EOS ({tokenizer.eos_token!r}), so its end is not learned"
    if ends > 1 and not several:
        return f"has {ends} EOS ({tokenizer.eos_token!r})"
    tail = ids[len(ids) - ids[::-1].index(eos) :]
    # Templates often write a line end behind it.
    if tokenizer.decode(tail).strip():
        return f"goes on behind its EOS: {tokenizer.decode(tail)[:40]!r}"
    return None
