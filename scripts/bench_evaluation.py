"""Measurements of the evaluation, each against something else that does the same.

    python scripts/bench_evaluation.py grader [--data DIR] [--repeats N]

`grader`: how many answers a second, against bare Math-Verify (`verify(parse(gold), parse(text))`, its published use) in one
process on the same pairs. Ratios are paired over repeats, whose order alternates, with a t interval of their logarithms.
Every repeat is asked afresh: what the grader remembers of earlier comparisons is forgotten before it.

`harness`: wall time of the whole command against lm-evaluation-harness (see `bench_harness.py`).

`adaptive`: items needed by chosen against random items for one error of the ability (see `bench_adaptive.py`).

A section is a function here that takes the parsed arguments; each writes `scripts/results/bench_evaluation_SECTION.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import bench_adaptive  # noqa: E402
import bench_harness  # noqa: E402

Pair = tuple[str, str]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def interval_of_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of paired ratios and its 95 % t interval."""
    from scipy import stats

    logs = [math.log(r) for r in ratios]
    middle = statistics.fmean(logs)
    half = (
        float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        if len(logs) > 1
        else math.inf
    )
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def keep(section: str, found: dict[str, Any]) -> None:
    from posttrain.rundir import write_json

    write_json(RESULTS / f"bench_evaluation_{section}.json", found)


# ---- grader


def plain_pairs(folder: Path) -> list[Pair]:
    """Golds of GSM8K, AIME24 and AMC23 in a sentence with a box; every second one is another row's, so wrong as a rule."""
    golds = [r["answer"].rpartition("####")[2].strip() for r in rows(folder, "gsm8k")]
    golds += [str(int(float(r["answer"]))) for name in ("aime24", "amc23") for r in rows(folder, name)]
    others = golds[1:] + golds[:1]
    said = [gold if k % 2 else other for k, (gold, other) in enumerate(zip(golds, others, strict=True))]
    return [
        (gold, f"Adding it all up, the answer is $\\boxed{{{answer}}}$.")
        for gold, answer in zip(golds, said, strict=True)
    ]


def solution_pairs(folder: Path) -> list[Pair]:
    """MATH-500's golds and reference solutions."""
    return [(r["answer"], r["solution"]) for r in rows(folder, "math500")]


def wrong_pairs(folder: Path) -> list[Pair]:
    """MATH-500's golds, each with the solution of the next problem whose answer is no plain number: nothing is quick here."""
    hard = [r for r in rows(folder, "math500") if not re.fullmatch(r"[-\d.,\\!]+", r["answer"])]
    return [(a["answer"], b["solution"]) for a, b in zip(hard, hard[1:] + hard[:1], strict=True)]


def bare(pairs: Sequence[Pair]) -> list[bool]:
    from math_verify import parse, verify

    return [bool(verify(parse(f"${gold}$"), parse(text))) for gold, text in pairs]


def ours(pairs: Sequence[Pair]) -> list[bool]:
    from rewards.grading import grade_many

    return [verdict.right for verdict in grade_many(pairs)]


def afresh() -> None:
    """Forget earlier comparisons, and have the workers started and their libraries loaded."""
    from rewards.grading import grade_many, pool

    pool.close()
    grade_many([(f"x+{k}", f"\\boxed{{{k}+x}}") for k in range(40)])


def timed(ask: Callable[[Sequence[Pair]], list[bool]], pairs: Sequence[Pair]) -> tuple[float, int]:
    """Seconds, and how many were right."""
    began = time.perf_counter()
    found = ask(pairs)
    return time.perf_counter() - began, sum(found)


def grader(arguments: argparse.Namespace) -> int:
    import logging

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
    folder = Path(arguments.data)
    from rewards.grading import GRADER, pool

    cases = (
        ("plain answers", "1 process", plain_pairs(folder), 5.0),
        ("MATH-500 solutions", "2 workers", solution_pairs(folder), 1.5),
        ("MATH-500, other rows' solutions", "2 workers", wrong_pairs(folder), None),
    )
    os.environ["REWARDS_GRADER_PROCESSES"] = "2"
    bare(cases[0][2][:20])
    found: dict[str, Any] = {"grader": GRADER, "repeats": arguments.repeats, "cases": []}
    for name, where, pairs, target in cases:
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        rights = {}
        for repeat in range(arguments.repeats):
            for who in ("ours", "bare") if repeat % 2 else ("bare", "ours"):
                if who == "ours":
                    afresh()
                took, rights[who] = timed(ours if who == "ours" else bare, pairs)
                seconds[who].append(took)
        ratio, low, high = interval_of_ratios([b / a for a, b in zip(seconds["ours"], seconds["bare"], strict=True)])
        rates = {who: round(len(pairs) / statistics.median(took), 1) for who, took in seconds.items()}
        found["cases"].append(
            {"name": name, "ours_in": where, "pairs": len(pairs), "per_second": rates, "right": rights, "ratio": round(ratio, 2),
             "interval": [round(low, 2), round(high, 2)], "target": target, "seconds": seconds}
        )  # fmt: skip
        wanted = "" if target is None else f"  (target {target:g})"
        print(
            f"{name}: {len(pairs)} pairs; ours {rates['ours']:.0f}/s in {where} ({rights['ours']} right), bare Math-Verify "
            f"{rates['bare']:.0f}/s in 1 process ({rights['bare']} right): {ratio:.2f} x [{low:.2f}, {high:.2f}]{wanted}"
        )
    pool.close()
    keep("grader", found)
    return 0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sections = parser.add_subparsers(dest="section", required=True)
    section = sections.add_parser("grader", help="answers a second against bare Math-Verify")
    section.add_argument(
        "--data", default=os.environ.get("POSTTRAIN_BENCHMARKS", "."), help="folder with the benchmark files"
    )
    section.add_argument("--repeats", type=int, default=5)
    section.set_defaults(run=grader)
    bench_adaptive.add(sections.add_parser("adaptive", help="items that choosing saves, on simulated and real models"))
    bench_harness.add(sections.add_parser("harness", help="wall time against lm-evaluation-harness"))
    arguments = parser.parse_args(words)
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
