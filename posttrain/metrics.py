"""What every number in `metrics.jsonl` means: one table that the page, the trainers and the docs read.

Keys are the names that are logged; `<name>` in a key stands for any text (a reward's name). Numbers that end in the phase `eval` have
the same names and the same formulas, over the held-out rows. With `logging_steps` above 1 a logged number is the mean over the
optimiser steps since the last line (and over the micro-batches of each), unless its entry says otherwise.

Formulas follow TRL 1.16. In them, π is the policy being trained, π_old the policy at the time of the rollouts as the trainer computes
it, μ the same policy as the sampler computed it, π_ref the reference, A the advantage; "tokens" are completion tokens that the policy
wrote (not the prompt, not padding, not a tool's output), and means over tokens go over all processes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

Better = Literal["up", "down", "none"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of meaning, one of formula."""

    meaning: str
    formula: str
    unit: str = ""
    """`share` (0 to 1), `tokens`, `nats`, `s`, ...; empty = a plain number."""
    better: Better = "none"
    """Which way is good in itself; `none` = it depends, or only a diagnosis."""


METRICS: dict[str, Metric] = {
    # -- rewards of rollouts
    "reward": Metric("Mean reward of a rollout", "mean over judged rollouts of Σ weight × reward", better="up"),
    "reward_std": Metric(
        "Spread of the reward over the batch", "standard deviation (n − 1) of the weighted reward over judged rollouts"
    ),
    "rewards/<name>/mean": Metric(
        "Mean of one reward before its weight", "mean over the rollouts that it judged", better="up"
    ),
    "rewards/<name>/std": Metric(
        "Spread of one reward over the batch", "standard deviation (n − 1) over the rollouts that it judged"
    ),
    "rewards/<name>/faults": Metric(
        "Share of rollouts that this reward failed on",
        "rollouts with an exception, time-out or invalid number ÷ rollouts",
        "share",
        "down",
    ),
    "frac_reward_zero_std": Metric(
        "Share of rollouts in flat groups, which give no gradient",
        "share of groups whose judged rewards are all equal: the weighted sum to float32's precision, or, with normalize_then_sum, every reward",
        "share",
        "down",
    ),
    # -- completions
    "completions/mean_length": Metric(
        "Mean completion length", "mean over rollouts of tokens written by the policy", "tokens"
    ),
    "completions/min_length": Metric(
        "Shortest completion", "minimum over rollouts of tokens written by the policy", "tokens"
    ),
    "completions/max_length": Metric(
        "Longest completion", "maximum over rollouts of tokens written by the policy", "tokens"
    ),
    "completions/mean_terminated_length": Metric(
        "Mean length of completions that ended by themselves",
        "mean tokens over rollouts whose last token is EOS or padding; 0 if none",
        "tokens",
    ),
    "completions/min_terminated_length": Metric(
        "Shortest completion that ended by itself",
        "minimum tokens over rollouts whose last token is EOS or padding; 0 if none",
        "tokens",
    ),
    "completions/max_terminated_length": Metric(
        "Longest completion that ended by itself",
        "maximum tokens over rollouts whose last token is EOS or padding; 0 if none",
        "tokens",
    ),
    "completions/clipped_ratio": Metric(
        "Share of completions without an EOS at the end",
        "share of rollouts whose last token is neither EOS nor padding",
        "share",
        "down",
    ),
    "completions/truncated": Metric(
        "Share of completions cut at the token limit",
        "share of rollouts for which the engine gave the finish reason `length`",
        "share",
        "down",
    ),
    # -- the policy
    "entropy": Metric("Entropy of the next-token distribution", "mean over tokens of −Σ_v π(v) ln π(v)", "nats"),
    "kl": Metric(
        "Divergence from the reference policy",
        "GRPO: mean over tokens of r − ln r − 1 with r = π_ref/π (× π/π_old with use_bias_correction_kl); RLOO: mean over tokens of ln π_old − ln π_ref",
        "nats",
    ),
    "clip_ratio/region_mean": Metric(
        "Clip share: how much of the batch the trust region stops",
        "share of tokens (RLOO, and sequence-level ratios: of sequences) with π/π_old < 1 − ε_low and A < 0, or π/π_old > 1 + ε_high and A > 0",
        "share",
    ),
    "clip_ratio/low_mean": Metric("Clip share on the low side", "share with π/π_old < 1 − ε_low and A < 0", "share"),
    "clip_ratio/high_mean": Metric(
        "Clip share on the high side", "share with π/π_old > 1 + ε_high and A > 0", "share"
    ),
    "clip_ratio/low_min": Metric(
        "Lowest low-side clip share of a sequence",
        "minimum over sequences of the share clipped on the low side",
        "share",
    ),
    "clip_ratio/high_max": Metric(
        "Highest high-side clip share of a sequence",
        "maximum over sequences of the share clipped on the high side",
        "share",
    ),
    "cispo_clip_ratio": Metric(
        "Clip share of the CISPO loss", "share of tokens with π/π_old > ε_high and A > 0", "share"
    ),
    "vespo/phi_seq_mean": Metric(
        "Mean weight of the VESPO loss",
        "mean over sequences of φ(w) = e^λ w^k e^(−λw), w = Π π/π_old (× the sampling correction)",
    ),
    "policy_loss": Metric(
        "Loss without the entropy bonus", "the policy term of the loss, before the division by accumulation steps"
    ),
    "entropy_coef": Metric(
        "Coefficient of the entropy bonus", "fixed, or moved by ±entropy_coef_delta a step towards entropy_target"
    ),
    "policy_version": Metric(
        "Version of the policy that made the rollouts",
        "optimiser steps taken when the sampler's weights were made (0 = the start)",
        "steps",
    ),
    # -- sampler against trainer
    "sampling/sampling_logp_difference/mean": Metric(
        "Mean gap between trainer and sampler", "mean over tokens of |ln π_old − ln μ|", "nats", "down"
    ),
    "sampling/sampling_logp_difference/max": Metric(
        "Largest gap between trainer and sampler", "maximum over tokens of |ln π_old − ln μ|", "nats", "down"
    ),
    "sampling/importance_sampling_ratio/mean": Metric(
        "Mean weight of the sampling correction",
        "mean of w = π_old/μ after truncation or masking, over tokens (sequence modes: over sequences); 1 = none",
    ),
    "sampling/importance_sampling_ratio/min": Metric(
        "Smallest weight of the sampling correction", "minimum of w = π_old/μ after truncation or masking"
    ),
    "sampling/importance_sampling_ratio/max": Metric(
        "Largest weight of the sampling correction", "maximum of w = π_old/μ after truncation or masking"
    ),
    "sampling/dropped": Metric(
        "Share that the sampling correction drops", "share of weights w that are 0", "share", "down"
    ),
    "sampling/ess": Metric(
        "Effective sample size under the sampling correction",
        "(mean w)² ÷ mean w², as a share; 1 = no weight is wasted",
        "share",
        "up",
    ),
    # -- the books of completions (totals since the start of the run, over all processes)
    "ledger/issued": Metric("Completions asked for so far", "cumulative", "completions"),
    "ledger/finished": Metric("Completions that came back so far", "cumulative; equals issued", "completions"),
    "ledger/trained": Metric(
        "Completions trained on so far",
        "cumulative; each once, however many passes num_iterations makes over it",
        "completions",
    ),
    "ledger/dropped": Metric(
        "Completions without a vote in the policy loss so far",
        "cumulative; not judged, masked as truncated, or in a step that float16 skipped",
        "completions",
        "down",
    ),
    "ledger/waiting": Metric(
        "Completions that wait for their first training pass", "finished − trained − dropped", "completions"
    ),
    "ledger/sampled_tokens": Metric("Tokens that the policy wrote so far", "cumulative over completions", "tokens"),
    "ledger/trained_tokens": Metric(
        "Tokens of the completions trained on so far", "cumulative; each once, as ledger/trained", "tokens"
    ),
    # -- engine against trainer on one fixed prompt, after the last sync
    "parity/gap": Metric(
        "Gap between engine and trainer on a fixed prompt",
        "mean over 4 tokens (engine transformers: 1) of |ln π(engine) − ln π(trainer)| after the last sync",
        "nats",
        "down",
    ),
    "parity/effect": Metric(
        "What the adapter changes on a fixed prompt",
        "mean over the same tokens of |ln π − ln π without the adapter|, both by the trainer; only for engines with weights of their own, looked at after versions 0, 1, 2, 4, 8, … and in doubt",
        "nats",
    ),
    # -- tools
    "tools/call_frequency": Metric("Tool calls a rollout", "tool calls ÷ rollouts"),
    "tools/failure_frequency": Metric(
        "Share of tool calls that failed", "failed calls ÷ calls; 0 if none", "share", "down"
    ),
    # -- optimisation
    "loss": Metric(
        "Training loss",
        "what is minimised, mean over the steps since the last line (GRPO: about 0 with one update a batch; its sign says nothing)",
    ),
    "grad_norm": Metric("Norm of the gradient", "‖g‖₂ over all trained parameters before clipping, at the last step"),
    "learning_rate": Metric("Learning rate", "the schedule's value at the last step"),
    "epoch": Metric("Passes over the training rows", "rows seen ÷ rows"),
    "aux_loss": Metric(
        "Load-balancing loss of a mixture of experts", "the model's router loss, before its coefficient", better="down"
    ),
    "num_tokens": Metric(
        "Tokens seen so far",
        "cumulative; GRPO and RLOO: prompts + completions generated; SFT and DPO: tokens in training batches",
        "tokens",
    ),
    "num_input_tokens_seen": Metric("Input tokens seen so far", "cumulative over all processes", "tokens"),
    # -- supervised and preference training
    "mean_token_accuracy": Metric(
        "Share of target tokens that the policy ranks first",
        "share of target tokens (DPO: of the chosen answer) equal to argmax π",
        "share",
        "up",
    ),
    "rewards/chosen": Metric(
        "Implicit reward of chosen answers", "mean over pairs of β ln(π/π_ref) of the chosen answer"
    ),
    "rewards/rejected": Metric(
        "Implicit reward of rejected answers", "mean over pairs of β ln(π/π_ref) of the rejected answer"
    ),
    "rewards/accuracies": Metric(
        "Share of pairs ranked rightly",
        "share of pairs whose chosen answer has the higher implicit reward",
        "share",
        "up",
    ),
    "rewards/margins": Metric(
        "Lead of the chosen answer", "mean over pairs of implicit reward: chosen − rejected", better="up"
    ),
    "logps/chosen": Metric(
        "Log-probability of chosen answers", "mean over pairs of Σ ln π over the chosen answer's tokens", "nats"
    ),
    "logps/rejected": Metric(
        "Log-probability of rejected answers", "mean over pairs of Σ ln π over the rejected answer's tokens", "nats"
    ),
    "logits/chosen": Metric(
        "Mean logit on chosen answers", "mean over the vocabulary and the tokens of chosen answers"
    ),
    "logits/rejected": Metric(
        "Mean logit on rejected answers", "mean over the vocabulary and the tokens of rejected answers"
    ),
    # -- time
    "step_time": Metric(
        "Training passes of an optimiser step, as TRL times them",
        "Σ seconds in training_step (rollouts made within it included)",
        "s",
        "down",
    ),
    "time/generation": Metric(
        "Time to make rollouts", "seconds an optimiser step in the engine and the strategy", "s", "down"
    ),
    "time/rewards": Metric("Time to score rollouts", "seconds an optimiser step in reward functions", "s", "down"),
    "time/logprobs": Metric(
        "Time for log-probs without gradient", "seconds an optimiser step on ln π_old and ln π_ref", "s", "down"
    ),
    "time/training": Metric(
        "Time for the training pass", "seconds an optimiser step in forward, backward and optimiser", "s", "down"
    ),
    "time/sync": Metric(
        "Time to hand weights to the engine",
        "seconds an optimiser step in saving and loading the new version",
        "s",
        "down",
    ),
    "time/other": Metric(
        "Time in no other phase", "wall seconds of an optimiser step − Σ of the named phases", "s", "down"
    ),
    # -- adaptive evaluations (`evaluation.*.adaptive`), lines of the phase `evaluation`: before (step 0), every so many steps, after
    "adaptive/<benchmark>/ability": Metric(
        "Ability on a benchmark, from items chosen for the policy",
        "posterior mode under the item bank and N(0, 1), in standard deviations of the bank's models; 0 = their mean",
        better="up",
    ),
    "adaptive/<benchmark>/se": Metric(
        "Standard error of that ability", "1 ÷ √(Σ information of the asked items + 1)", better="down"
    ),
    "adaptive/<benchmark>/items": Metric("Items asked for it", "number of items, each asked `samples` times"),
    "adaptive/<benchmark>/accuracy": Metric(
        "Accuracy over the whole bank that it speaks for",
        "(right among the asked + Σ chance of the others) ÷ items of the bank",
        "share",
        "up",
    ),
    # -- rollouts drawn under a scaffold (`rollouts.strategy: scaffold`), whether the loss has it or not
    "scaffold/shown": Metric(
        "Share of rollouts that were shown something", "rollouts whose scaffold holds an item ÷ rollouts", "share"
    ),
    "scaffold/ratio": Metric("Mean scaffold ratio", "mean over rollouts of λ(t) × λ_i"),
    "scaffold/tokens": Metric(
        "Prompt tokens that scaffolds add",
        "mean over rollouts of tokens of the engine's prompt − of the row's own",
        "tokens",
    ),
    "scaffold/leak": Metric(
        "Share of answers that speak of the scaffold",
        "rollouts with a word such as rubric or criterion, or with eight words in a row of the criteria they were shown (neither "
        "counts where the row's prompt has it) ÷ rollouts; a look at words, so compare with its value before",
        "share",
        "down",
    ),
    "scaffold/advantage/<i>": Metric(
        "Advantage of the i-th sample of a group",
        "mean over groups of A of sample i = 1..G, before scaffold_negative; the first samples see the most",
    ),
    "scaffold/gap/<i>": Metric(
        "How much likelier the scaffold made the i-th sample",
        "mean over tokens of the scaffolded samples i of ln μ(o|q,R_S) − ln π_old(o|q); grpo only",
        "nats",
    ),
    # -- rubrics (`rewards.rubric:Rubric`) and their judge: of a batch of rollouts, mean over batches; counts are of all processes together
    "rubric/failed": Metric(
        "Share of criteria without a verdict",
        "criteria that neither code nor judge decided ÷ criteria; none of them counts as unmet",
        "share",
        "down",
    ),
    "rubric/mean": Metric(
        "Mean rubric score", "mean over judged rollouts of earned ÷ positive points; it may be below 0", "", "up"
    ),
    "rubric/clipped_mean": Metric(
        "Mean rubric score, clipped",
        "rubric/mean, clipped to [0, 1] last of all: after the mean over rollouts, batches and processes; in metrics.jsonl only",
        "share",
        "up",
    ),
    "judge/questions": Metric(
        "Criteria to judge", "criteria without a check, over a batch's rollouts in all processes"
    ),
    "judge/cached": Metric(
        "Verdicts from the cache",
        "criteria of a batch, in all processes, whose verdict was known already; nothing is sent for them",
    ),
    "judge/calls": Metric(
        "Requests to the judge", "requests sent for a batch by all processes, repeated ones included"
    ),
    "judge/tokens": Metric(
        "Tokens of the judge", "prompt and answer, of all requests for a batch, as the endpoint counts them", "tokens"
    ),
    "judge/seconds": Metric(
        "Time to judge", "wall seconds of a batch's criteria, the cache's included; mean over processes", "s"
    ),
    "judge/failed": Metric(
        "Share of the judge's criteria without a verdict",
        "judge/questions without a verdict ÷ judge/questions",
        "share",
        "down",
    ),
    "judge/agreement": Metric(
        "Agreement of the judge's votes",
        "mean over criteria of the share of votes that agree with their majority; only where it votes",
        "share",
        "up",
    ),
    # -- the end of a run, and of an evaluation pass over held-out rows
    "train_runtime": Metric("Length of the training loop", "wall seconds", "s"),
    "train_samples_per_second": Metric("Throughput over the run", "samples ÷ seconds of the loop", "1/s", "up"),
    "train_steps_per_second": Metric(
        "Optimiser steps a second over the run", "steps ÷ seconds of the loop", "1/s", "up"
    ),
    "train_tokens_per_second": Metric("Tokens a second over the run", "tokens ÷ seconds of the loop", "1/s", "up"),
    "train_loss": Metric("Training loss over the run", "mean of the loss over all steps"),
    "checkpoints/failed": Metric(
        "Checkpoints that the disk did not take", "cumulative in this launch; logged from the first on", "", "down"
    ),
    "total_flos": Metric(
        "Estimated floating-point operations", "6 × parameters × tokens, as transformers estimates it", "FLOP"
    ),
    "runtime": Metric("Length of a pass over held-out rows", "wall seconds", "s", "down"),
    "samples_per_second": Metric("Held-out rows a second", "rows ÷ seconds", "1/s", "up"),
    "steps_per_second": Metric("Held-out batches a second", "batches ÷ seconds", "1/s", "up"),
}

BOOKKEEPING = ("step", "phase", "time")
"""Keys of a line of `metrics.jsonl` that are no metrics."""


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], Metric], ...]:
    """Keys with `<name>`, the most specific (longest fixed text) first."""
    keys = sorted((k for k in METRICS if "<" in k), key=lambda k: -len(re.sub("<.*?>", "", k)))
    return tuple((re.compile(re.sub(r"<.*?>", "(.+)", k), re.DOTALL), METRICS[k]) for k in keys)


def describe(name: str) -> Metric | None:
    """The entry for a logged name, with or without `eval_` in front; None for one that the table does not know."""
    if not isinstance(name, str):
        return None
    for candidate in (name, name.removeprefix("eval_")):
        if found := METRICS.get(candidate):
            return found
        for pattern, metric in _patterns():
            if pattern.fullmatch(candidate):
                return metric
    return None


def markdown_table() -> str:
    """The whole table for the docs, in GitHub's Markdown, in the order of `METRICS`."""
    good = {"up": "higher", "down": "lower", "none": ""}
    rows = ["| name | meaning | formula | unit | better |", "|---|---|---|---|---|"]
    for name, metric in METRICS.items():
        cells = (f"`{name}`", metric.meaning, metric.formula, metric.unit, good[metric.better])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
