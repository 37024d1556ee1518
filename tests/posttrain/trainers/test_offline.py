"""SFT and DPO in our frame are TRL's, step for step."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from posttrain.rundir import read_lines
from posttrain.trainers.dpo import DPO
from posttrain.trainers.sft import SFT


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def asked(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"say {i}"}]


ROWS = {
    "sft": [{"row_id": f"r{i}", "prompt": asked(i), "completion": said(str(i) * 3)} for i in range(16)],
    "dpo": [
        {"row_id": f"r{i}", "prompt": asked(i), "chosen": said(str(i)), "rejected": said("no")} for i in range(16)
    ],
}


@pytest.mark.parametrize(
    ("algorithm", "ours", "theirs", "config"),
    [("sft", SFT, SFTTrainer, SFTConfig), ("dpo", DPO, DPOTrainer, DPOConfig)],
)
def test_the_same_steps(parts, algorithm, ours, theirs, config):
    built = parts(rewards=[], algorithm=algorithm, args={"max_steps": 3})
    built.train = Dataset.from_list(ROWS[algorithm])
    trainer = ours.build(built)
    trainer.train()
    other = parts(rewards=[], algorithm=algorithm, args={"max_steps": 3})
    reference = theirs(
        model=other.model,
        args=config(**other.arguments),
        train_dataset=Dataset.from_list(ROWS[algorithm]),
        processing_class=other.tokenizer,
        peft_config=other.peft_config,
    )
    reference.train()
    mine = {k: v for k, v in trainer.model.named_parameters() if v.requires_grad}
    for name, parameter in reference.model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, mine[name])
    assert any(v.abs().max() > 0 for k, v in mine.items() if "lora_B" in k)
    train = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    assert [m["step"] for m in train] == [1, 2, 3]
    assert all(m["time/training"] > 0 for m in train)
    assert train[0]["loss"] == pytest.approx(reference.state.log_history[0]["loss"])


def test_only_the_answer_is_trained_on(parts):
    """The loss of a step is the mean negative log-prob of the completion's tokens, its end included."""
    built = parts(rewards=[], algorithm="sft", args={"max_steps": 1, "per_device_train_batch_size": 1})
    built.train = Dataset.from_list(ROWS["sft"][:1])
    prompt = built.tokenizer.apply_chat_template(asked(0), add_generation_prompt=True, tokenize=True)["input_ids"]
    whole = built.tokenizer.apply_chat_template([*asked(0), *said("000")], tokenize=True)["input_ids"]
    with torch.no_grad():
        logits = built.model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
    expected = -logits[range(len(prompt) - 1, len(whole) - 1), whole[len(prompt) :]].mean().item()
    assert len(whole) - len(prompt) == 4
    SFT.build(built).train()
    train = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    assert train[0]["loss"] == pytest.approx(expected, rel=1e-4)
