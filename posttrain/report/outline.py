"""Which metrics stand together in which chart, and the charts in which section."""

from __future__ import annotations

GROUPS: tuple[tuple[str, tuple[tuple[str, str, tuple[str, ...]], ...]], ...] = (
    (
        "What is learned",
        (
            ("reward", "", ("reward",)),
            ("rewards", "Rewards one by one, before their weights", ("rewards/<name>/mean",)),
            ("frac_reward_zero_std", "", ("frac_reward_zero_std",)),
            ("reward_std", "", ("reward_std",)),
            ("reward_stds", "Spread of each reward over the batch", ("rewards/<name>/std",)),
            ("reward_faults", "Share of rollouts that a reward failed on", ("rewards/<name>/faults",)),
            ("mean_token_accuracy", "", ("mean_token_accuracy",)),
            ("preference", "", ("rewards/accuracies",)),
            ("margins", "", ("rewards/margins",)),
            ("implicit", "Implicit reward of chosen and rejected answers", ("rewards/chosen", "rewards/rejected")),
            ("logps", "Log-probability of chosen and rejected answers", ("logps/chosen", "logps/rejected")),
            ("logits", "Mean logit on chosen and rejected answers", ("logits/chosen", "logits/rejected")),
        ),
    ),
    (
        "Completions and the policy",
        (
            (
                "lengths",
                "Completion length",
                ("completions/mean_length", "completions/min_length", "completions/max_length"),
            ),
            (
                "terminated",
                "Length of completions that ended by themselves",
                (
                    "completions/mean_terminated_length",
                    "completions/min_terminated_length",
                    "completions/max_terminated_length",
                ),
            ),
            (
                "truncated",
                "Share of completions cut at the token limit",
                ("completions/truncated", "completions/clipped_ratio"),
            ),
            ("tools", "Tool calls", ("tools/call_frequency",)),
            ("tool_failures", "", ("tools/failure_frequency",)),
            ("entropy", "", ("entropy",)),
            ("kl", "", ("kl",)),
            (
                "clip",
                "Clip share: how much of the batch the trust region stops",
                ("clip_ratio/region_mean", "clip_ratio/low_mean", "clip_ratio/high_mean"),
            ),
            ("cispo", "", ("cispo_clip_ratio",)),
            ("vespo", "", ("vespo/phi_seq_mean",)),
            ("entropy_coef", "", ("entropy_coef",)),
        ),
    ),
    (
        "Optimisation",
        (
            ("loss", "", ("loss",)),
            ("policy_loss", "", ("policy_loss",)),
            ("grad_norm", "", ("grad_norm",)),
            ("learning_rate", "", ("learning_rate",)),
            ("aux_loss", "", ("aux_loss",)),
        ),
    ),
    (
        "Sampler against trainer",
        (
            (
                "gap",
                "Gap between trainer and sampler",
                ("sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max"),
            ),
            (
                "weights",
                "Weights of the sampling correction",
                (
                    "sampling/importance_sampling_ratio/mean",
                    "sampling/importance_sampling_ratio/min",
                    "sampling/importance_sampling_ratio/max",
                ),
            ),
            ("ess", "", ("sampling/ess",)),
            ("dropped", "", ("sampling/dropped",)),
        ),
    ),
    (
        "Rubric and judge",
        (
            ("rubric_failed", "Share of criteria without a verdict", ("rubric/failed", "judge/failed")),
            ("rubric_mean", "Rubric score", ("rubric/mean", "rubric/clipped_mean")),
            ("judge_calls", "What the judge was asked", ("judge/questions", "judge/cached", "judge/calls")),
            ("judge_tokens", "", ("judge/tokens",)),
            ("judge_seconds", "", ("judge/seconds",)),
            ("judge_agreement", "", ("judge/agreement",)),
        ),
    ),
    (
        "Scaffold",
        (
            ("scaffold", "How much the scaffold shows", ("scaffold/shown", "scaffold/ratio")),
            ("scaffold_tokens", "", ("scaffold/tokens",)),
            ("scaffold_leak", "", ("scaffold/leak",)),
            ("scaffold_advantage", "Advantage by place in the group", ("scaffold/advantage/<i>",)),
            (
                "scaffold_gap",
                "How much likelier the scaffold made a sample, by place in the group",
                ("scaffold/gap/<i>",),
            ),
        ),
    ),
)
"""Section -> charts of (key, title, metrics). A chart of one metric takes its title from `METRICS`."""

QUIET = ("reward_faults", "dropped")
"""Charts that are nothing to see while they are 0; they are then among everything else."""

LABELS = {
    "completions/truncated": "cut at the limit",
    "completions/clipped_ratio": "no EOS at the end",
    "clip_ratio/region_mean": "both sides",
    "rubric/failed": "all criteria",
    "rubric/clipped_mean": "clipped to [0, 1]",
    "judge/failed": "the judge's",
    "judge/questions": "criteria to judge",
    "judge/cached": "of them known already",
    "judge/calls": "requests",
    "scaffold/shown": "rollouts that were shown something",
    "scaffold/ratio": "mean ratio",
}
"""Names of curves where the metric's own does not say it."""
