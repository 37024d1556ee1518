"""The ledger and the comparison of tokens against brute force, on whatever hypothesis thinks of."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.trainers.ledger import Ledger, Sample
from posttrain.trainers.tokens import unlike, untrue
from rollouts.records import Completion, Rollout

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@st.composite
def dialogues(draw):
    """Rollouts of up to three turns, each a completion (perhaps cut) and perhaps words of a tool; and all that was sampled.
    Few ids and common prompts, so that one completion is often the beginning of another."""
    sampled, rollouts = {}, []
    for n in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(st.integers(0, 1), min_size=1, max_size=2))
        ids, values, mask = [], [], []
        for _ in range(draw(st.integers(1, 3))):
            made = draw(IDS)
            logprobs = [-0.1 * i - n for i, _ in enumerate(made)]
            sampled.setdefault((*prompt, *ids), []).append(Completion(made, logprobs, "stop", 0))
            kept = draw(st.integers(1, len(made)))
            tool = draw(st.lists(st.integers(0, 3), max_size=2))
            ids, values = [*ids, *made[:kept], *tool], [*values, *logprobs[:kept], *[0.0] * len(tool)]
            mask = [*mask, *[1] * kept, *[0] * len(tool)]
        # Perhaps the engine was shown another prompt than the one that is trained on.
        own = draw(st.none() | st.lists(st.integers(0, 1), min_size=1, max_size=2))
        seen = {} if own is None else {"seen_ids": prompt}
        rollouts.append(Rollout(f"row-{n}", 0, 0, own or prompt, ids, values, mask, "stop", **seen))
    return rollouts, sampled


@given(dialogues())
@settings(max_examples=300, deadline=None)
def test_what_was_sampled_is_true(made):
    rollouts, sampled = made
    assert [untrue(r, sampled) for r in rollouts] == [None] * len(rollouts)


def explained(rollout, sampled, at=0):
    """Brute force: can the tokens from `at` on be laid out with completions and words under mask 0?"""
    if at == len(rollout.completion_ids):
        return True
    if not rollout.mask[at]:
        return explained(rollout, sampled, at + 1)
    shown = rollout.prompt_ids if rollout.seen_ids is None else rollout.seen_ids
    before = (*shown, *rollout.completion_ids[:at])
    for made in sampled.get(before, []):
        for size in range(1, len(made.ids) + 1):
            end = at + size
            if end > len(rollout.mask):
                break
            same = (
                rollout.completion_ids[at:end] == made.ids[:size] and rollout.logprobs[at:end] == made.logprobs[:size]
            )
            if same and all(rollout.mask[at:end]) and explained(rollout, sampled, end):
                return True
    return False


@given(dialogues(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_change_is_seen_unless_it_too_was_sampled(made, data):
    rollouts, sampled = made
    rollout = data.draw(st.sampled_from(rollouts))
    place = data.draw(st.integers(0, len(rollout.completion_ids) - 1))
    ids, mask, values = list(rollout.completion_ids), list(rollout.mask), list(rollout.logprobs)
    what = data.draw(st.sampled_from(["id", "mask", "value"]))
    if what == "id":
        ids[place] = (ids[place] + data.draw(st.integers(1, 3))) % 4
    elif what == "mask":
        mask[place] = 1 - mask[place]
    else:
        values[place] += 0.5
    changed = replace(rollout, completion_ids=ids, mask=mask, logprobs=values)
    assert (untrue(changed, sampled) is None) == explained(changed, sampled)


def batch(rollouts, dropped=()):
    """As TRL pads it."""
    width, length = max(len(r.prompt_ids) for r in rollouts), max(len(r.completion_ids) for r in rollouts)
    n = len(rollouts)
    made = {
        "prompt_ids": torch.full((n, width), 9), "prompt_mask": torch.zeros(n, width, dtype=torch.long),
        "completion_ids": torch.full((n, length), 9), "completion_mask": torch.zeros(n, length, dtype=torch.long),
        "tool_mask": torch.ones(n, length, dtype=torch.long),
    }  # fmt: skip
    for i, r in enumerate(rollouts):
        made["prompt_ids"][i, width - len(r.prompt_ids) :] = torch.tensor(r.prompt_ids)
        made["prompt_mask"][i, width - len(r.prompt_ids) :] = 1
        made["completion_ids"][i, : len(r.completion_ids)] = torch.tensor(r.completion_ids)
        made["completion_mask"][i, : len(r.completion_ids)] = 1
        made["tool_mask"][i, : len(r.mask)] = torch.tensor(r.mask)
        if i in dropped:
            made["completion_mask"][i] = 0
            made["tool_mask"][i] = 0
    return made


@given(dialogues(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_change_of_the_batch_is_seen_in_its_row(made, data):
    rollouts, _ = made
    dropped = data.draw(st.sets(st.integers(0, len(rollouts) - 1)))
    assert unlike(batch(rollouts, dropped), rollouts) is None
    kept = [i for i in range(len(rollouts)) if i not in dropped]
    if not kept:
        return
    row = data.draw(st.sampled_from(kept))
    name = data.draw(st.sampled_from(["prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask"]))
    length = len(rollouts[row].prompt_ids if name.startswith("prompt") else rollouts[row].completion_ids)
    spoilt = batch(rollouts, dropped)
    place = data.draw(st.integers(0, length - 1))
    place = -1 - place if name.startswith("prompt") else place
    spoilt[name][row, place] = 1 - spoilt[name][row, place]
    if not spoilt["completion_mask"][row].any():
        return  # a row that is wholly out of the loss was left out on purpose; the ledger counts it as dropped
    assert unlike(spoilt, rollouts)[0] == row


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.data()
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_the_books_balance_at_every_boundary(iterations, every, rows, accumulation, steps, data):
    """Any geometry, some rows without a vote, some steps skipped; saved and loaded at one boundary; counted by hand."""
    book, buffered, micro, seen, sizes = Ledger(iterations), [], 0, {}, {}
    load_at = data.draw(st.integers(0, steps - 1))
    for step in range(steps):
        window = []
        for _ in range(accumulation):
            if micro % (every * iterations) == 0:
                book.issue(every * rows)
                reasons = st.sampled_from([None, None, "unjudged", "masked"])
                samples = [Sample(f"r{i}", i, step, 1 + i, data.draw(reasons)) for i in range(every * rows)]
                tickets, wrong = book.finish(samples)
                assert wrong is None
                sizes |= dict(zip(tickets, samples, strict=True))
                order = data.draw(st.permutations(tickets))
                buffered = [order[i * rows : (i + 1) * rows] for i in range(every)]
            tokens, wrong = book.consume(buffered[micro % every])
            assert wrong is None
            assert tokens == sum(sizes[t].tokens for t in buffered[micro % every] if sizes[t].left_out != "masked")
            window += buffered[micro % every]
            micro += 1
        applied = data.draw(st.integers(0, 4)) > 0
        book.commit(applied)
        for ticket in window:
            passes, counted = seen.get(ticket, (0, False))
            seen[ticket] = (passes + 1, counted or applied)
        if step == load_at:
            state = json.loads(json.dumps(book.state_dict()))
            book = Ledger(iterations)
            book.load_state_dict(state)
            assert book.state_dict() == state
        assert book.imbalance(micro, every, buffered) is None
        voted = [t for t, (_, counted) in seen.items() if counted and sizes[t].left_out is None]
        assert book.trained == len(voted)
        assert book.trained_tokens == sum(sizes[t].tokens for t in voted)
        over = [t for t, (passes, counted) in seen.items() if passes == iterations and not counted]
        assert book.dropped.get("overflow", 0) == len(over)
        assert book.waiting == len(sizes) - sum(counted for _, counted in seen.values()) - len(over)
