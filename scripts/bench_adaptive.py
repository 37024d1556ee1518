"""What choosing items saves, and how good the item models are. Also `bench_evaluation.py adaptive`.

    python scripts/bench_adaptive.py [--seeds N] [--data DIR] [--py-irt PYTHON]

- *needed*: simulated models (the recipe of arXiv 2509.11106's reproduction: ln a ~ N(0, .5), b ~ N(0, 1.3), 400 items), a
  bank fitted to 100 of them, ability of 60 others from chosen items and from random ones, both by the same estimator under
  the same fitted bank. How many random items does it take to have the error of so many chosen ones?
- *real*: the four models of GSM8K's own repository, graded by `rewards.grading`. The bank for a model is fitted without it:
  to the other three and to 60 simulated models (`simulated_from`; two spreads of their abilities). Over draws of 800 of the 1319 problems: 50 chosen
  items against 50 random ones.
- both: how often the interval of the predicted accuracy holds the accuracy, as the item model has it and as it is widened by
  the misses of the bank's models held out (`posttrain.evaluation.adaptive.heldout`).
- *py-irt*: recovery by `posttrain irt fit` and by py-irt on the same tables, where PYTHON has py-irt installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.optimize import minimize  # noqa: E402
from scipy.special import expit, logsumexp  # noqa: E402
from scipy.stats import kendalltau  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from posttrain.evaluation.adaptive.ability import Ability, estimate  # noqa: E402
from posttrain.evaluation.adaptive.bank import HeldOut  # noqa: E402
from posttrain.evaluation.adaptive.fit import Fit, fit  # noqa: E402
from posttrain.evaluation.adaptive.heldout import held_out, widening  # noqa: E402
from posttrain.evaluation.adaptive.loop import Rule, Session, Step, replay  # noqa: E402
from posttrain.evaluation.adaptive.predict import accuracy  # noqa: E402

Floats = NDArray[np.float64]
CHOSEN = (10, 20, 50, 100)
RANDOM = (10, 15, 20, 30, 40, 50, 70, 100, 140, 200, 280, 400)
SPREAD = 2.5
"""Standard deviation of the simulated models' abilities in logits: from a few to nearly all items right. With 1.5 the weakest
and the strongest real model lie near the end of their bank's models, and the prior pulls what 50 items say of them inwards."""
REAL = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def respond(draw: np.random.Generator, theta: Floats, a: Floats, b: Floats) -> Floats:
    """0/1, (models, items)."""
    return (draw.random((theta.size, a.size)) < expit(a * (theta[:, None] - b))).astype(float)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % t interval."""
    x = np.asarray(values)
    half = float(student.ppf(0.975, x.size - 1)) * float(x.std(ddof=1)) / math.sqrt(x.size) if x.size > 1 else math.inf
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


# ---- needed


def world(
    seed: int, models: int = 100, items: int = 400
) -> tuple[np.random.Generator, Floats, Floats, Floats, Floats]:
    """A generator, abilities, a, b and answers."""
    draw = np.random.default_rng(seed)
    theta = draw.normal(size=models)
    a, b = np.exp(draw.normal(0, 0.5, items)), draw.normal(0, 1.3, items)
    return draw, theta, a, b, respond(draw, theta, a, b)


def errors(seed: int, batch: int, tested: int = 60) -> tuple[Floats, Floats, Floats, Floats]:
    """Root mean square error of the ability after each of CHOSEN chosen and of RANDOM random items; and after each of CHOSEN the
    share of models whose accuracy is in the predicted interval, the item model's own and the widened one."""
    draw, theta, a, b, answers = world(seed)
    bank, measured = fit(answers), held_out(answers, np.ones_like(answers))
    others = draw.normal(size=tested)
    answers = respond(draw, others, a, b)
    truth = (others - theta.mean()) / theta.std()  # on the bank's scale
    by_choice, by_chance, hits = [], [], []
    for x in answers:
        trace = replay(Session(bank.a, bank.b, Rule(max(CHOSEN), batch)), dict(enumerate(x))).trace
        by_choice.append([trace[n - 1].ability for n in CHOSEN])
        hits.append([held(trace[:n], bank.a, bank.b, x, measured) for n in CHOSEN])
        order = draw.permutation(x.size)
        by_chance.append([estimate(x[order[:n]], bank.a[order[:n]], bank.b[order[:n]]).value for n in RANDOM])
    chosen, random = (np.sqrt(np.mean((np.array(v) - truth[:, None]) ** 2, 0)) for v in (by_choice, by_chance))
    plain, wide = np.mean(hits, 0).T
    return chosen, random, plain, wide


def held(trace: Sequence[Step], a: Floats, b: Floats, x: Floats, measured: Sequence[HeldOut]) -> list[bool]:
    """Is the accuracy over all of `x` in the interval predicted after `trace`: in the item model's, in the widened one?"""
    last = Ability(trace[-1].ability, trace[-1].se)
    bounds = [accuracy(last, trace, a, b, widen=widen)[1:] for widen in (1.0, widening(measured, len(trace)))]
    return [bool(low <= x.mean() <= high) for low, high in bounds]


def worth(error: float, curve: Floats) -> float:
    """Random items that have this error, between the points of `curve` on logarithmic axes; the last if it is lower still."""
    falling = np.minimum.accumulate(curve)
    return float(np.exp(np.interp(-math.log(error), -np.log(falling), np.log(RANDOM))))


def needed(seeds: int, batch: int) -> dict[str, Any]:
    found = zip(*(errors(seed, batch) for seed in range(seeds)), strict=True)
    chosen, random, plain, wide = (np.array(v) for v in found)
    rows = []
    for j, n in enumerate(CHOSEN):
        ratios = [math.log(n / worth(chosen[s, j], random[s])) for s in range(seeds)]
        middle, low, high = (math.exp(v) for v in mean_interval(ratios))
        rows.append(
            {
                "chosen": n,
                "error": float(chosen[:, j].mean()),
                "error_random": float(random[:, RANDOM.index(n)].mean()),
                "ratio": middle,
                "low": low,
                "high": high,
                "random": n / middle,
                "coverage_unwidened": float(plain[:, j].mean()),
                "coverage": float(wide[:, j].mean()),
            }
        )
    return {"batch": batch, "seeds": seeds, "rows": rows}


# ---- real


def real_answers(folder: Path) -> tuple[Floats, Floats]:
    """Answers of the four models, graded (4, 1319), and the number of calculations in each reference solution."""
    from posttrain.evaluation import find_benchmark, grade_texts
    from posttrain.evaluation.adaptive.bank import text_digest

    benchmark = find_benchmark("gsm8k")
    problems = benchmark.load(str(folder / "gsm8k.jsonl"))
    lines = (folder / "gsm8k_model_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    by_text = {text_digest(row["question"]): row for row in map(json.loads, lines)}
    rows = [by_text[text_digest(p.question)] for p in problems]
    right = [
        [
            float(v.verdict == "RIGHT")
            for v in grade_texts(benchmark, problems, [row[name]["solution"] for row in rows])
        ]
        for name in REAL
    ]
    return np.array(right), np.array([float(row["ground_truth"].count("<<")) for row in rows])


def difficulty(answers: Floats, steps: Floats) -> tuple[Floats, Floats, Floats]:
    """Abilities of a few real models, and the mean and standard deviation of each item's difficulty given their answers.

    P(right) = s(t_m - beta · steps - sigma · e_j), e_j ~ N(0, 1): a Rasch model with a regression on the number of steps,
    by marginal likelihood over 21 quadrature nodes. Three answers say little of one item and much of the spread of all.
    """
    z = (steps - steps.mean()) / steps.std()
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    weights = weights / weights.sum()
    m = len(answers)

    def joint(x: Floats) -> Floats:  # (items, nodes)
        at = x[:m, None, None] - x[m] * z[:, None] - np.exp(x[m + 1]) * nodes
        sign = np.where(answers[:, :, None] == 1, 1, -1)
        return np.asarray(-np.logaddexp(0, -sign * at).sum(0) + np.log(weights))

    x = minimize(lambda x: -logsumexp(joint(x), axis=1).sum(), np.zeros(m + 2)).x
    given = joint(x)
    given = np.exp(given - logsumexp(given, axis=1, keepdims=True))
    middle = given @ nodes
    spread = np.sqrt(given @ nodes**2 - middle**2)
    sigma = math.exp(x[m + 1])
    return x[:m], x[m] * z + sigma * middle, sigma * spread


def simulated_from(answers: Floats, steps: Floats, seed: int, spread: float = SPREAD, count: int = 60) -> Floats:
    """Answers of simulated models to real items: difficulties as the real `answers` have it, what is not known of an item
    in its discrimination (probit's attenuation, 1 / sqrt(1 + (sd / 1.702)²))."""
    draw = np.random.default_rng(seed)
    abilities, b, sd = difficulty(answers, steps)
    return respond(draw, draw.normal(abilities.mean(), spread, count), 1 / np.sqrt(1 + (sd / 1.702) ** 2), b)


def banks_without(
    answers: Floats, steps: Floats, seed: int, spread: float = SPREAD
) -> list[tuple[Fit, list[HeldOut]]]:
    """A bank for each real model, from the other three and simulated ones; nothing of the judged model is in it."""
    found = []
    for judged in range(len(answers)):
        others = np.delete(answers, judged, 0)
        table = np.vstack([others, simulated_from(others, steps, seed, spread)])
        found.append((fit(table), held_out(table, np.ones_like(table))))
    return found


def judge(
    banks: Sequence[tuple[Fit, list[HeldOut]]],
    answers: Floats,
    draw: np.random.Generator,
    items: int = 50,
    pool: int = 800,
) -> dict[str, Floats]:
    """One draw of `pool` problems: each model's accuracy on all of them, and what `items` of them say of it.

    `full`, `chosen` (predicted accuracy), `random` (share right), `random_irt` (predicted from the random ones), all (models,);
    `off_chosen`, `off_random`: ability less that from all of the pool; `covered`: the predicted interval holds `full`
    (`covered_unwidened`: the item model's own does); `half_width` of it.
    """
    at = draw.choice(answers.shape[1], pool, replace=False)
    rows: dict[str, list[float]] = {}
    for (bank, measured), all_answers in zip(banks, answers, strict=True):
        a, b, x = bank.a[at], bank.b[at], all_answers[at]
        everything = estimate(x, a, b).value
        done = replay(Session(a, b, Rule(items, 10)), dict(enumerate(x)))
        value, low, high = accuracy(done.ability, done.trace, a, b, widen=widening(measured, items))
        plain_hit, wide_hit = held(done.trace, a, b, x, measured)
        pick = draw.choice(pool, items, replace=False)
        plain = estimate(x[pick], a[pick], b[pick])
        asked = [Step(int(i), float(x[i]), 1, 0.0, 0.0) for i in pick]
        for name, number in (
            ("full", x.mean()), ("chosen", value), ("random", x[pick].mean()), ("random_irt", accuracy(plain, asked, a, b)[0]),
            ("off_chosen", done.ability.value - everything), ("off_random", plain.value - everything),
            ("covered", wide_hit), ("covered_unwidened", plain_hit), ("half_width", (high - low) / 2),
        ):  # fmt: skip
            rows.setdefault(name, []).append(float(number))
    return {name: np.array(values) for name, values in rows.items()}


def score(found: Sequence[dict[str, Floats]], kind: str) -> dict[str, Any]:
    """Error of the accuracy (root mean square), agreement of the order, share of draws with the whole order right."""
    off = np.array([one[kind] - one["full"] for one in found])
    taus = [float(kendalltau(one[kind], one["full"]).statistic) for one in found]
    exact = [float(np.array_equal(np.argsort(one[kind]), np.argsort(one["full"]))) for one in found]
    return {
        "error": float(np.sqrt(np.mean(off**2))),
        "bias": off.mean(0).tolist(),
        "tau": mean_interval(taus),
        "in_order": mean_interval(exact),
    }


def real(answers: Floats, steps: Floats, seeds: int, spread: float, draws: int = 50) -> dict[str, Any]:
    found = []
    for seed in range(seeds):
        banks = banks_without(answers, steps, seed, spread)
        draw = np.random.default_rng(1000 + seed)
        found += [judge(banks, answers, draw) for _ in range(draws)]
    made: dict[str, Any] = {kind: score(found, kind) for kind in ("chosen", "random", "random_irt")}
    made["ability_error"] = {
        kind: float(np.sqrt(np.mean([one[f"off_{kind}"] ** 2 for one in found]))) for kind in ("chosen", "random")
    }
    made["interval_coverage"] = float(np.mean([one["covered"] for one in found]))
    made["interval_coverage_unwidened"] = float(np.mean([one["covered_unwidened"] for one in found]))
    made["interval_half_width"] = float(np.mean([one["half_width"] for one in found]))
    made["interval_coverage_by_model"] = np.mean([one["covered"] for one in found], 0).tolist()
    return made | {"accuracy": answers.mean(1).tolist(), "spread": spread, "banks": seeds, "draws": len(found)}


# ---- py-irt

PY_IRT = """
import json, sys, torch
torch.set_num_threads(1)
from py_irt.config import IrtConfig
from py_irt.dataset import Dataset
from py_irt.training import IrtModelTrainer
config = IrtConfig(model_type="2pl", priors="hierarchical", epochs=int(sys.argv[3]), seed=0, log_every=10**9)
trainer = IrtModelTrainer(data_path=None, config=config, dataset=Dataset.from_jsonlines(sys.argv[1]), verbose=False)
trainer.train(device="cpu")
made = trainer.best_params
models, items = made["subject_ids"], made["item_ids"]
json.dump({
    "ability": {models[k]: v for k, v in zip(map(int, models), made["ability"])} if not isinstance(models, list) else dict(zip(models, made["ability"])),
    "b": {items[k]: v for k, v in zip(items, made["diff"])},
    "a": {items[k]: v for k, v in zip(items, made["disc"])},
}, open(sys.argv[2], "w"))
"""


def recovery(theta: Floats, a: Floats, b: Floats, found: tuple[Floats, Floats, Floats]) -> list[float]:
    """Correlations of ability, difficulty and log discrimination with the truth; nan where a is not positive."""
    with np.errstate(invalid="ignore"):
        pairs = ((theta, found[0]), (b, found[1]), (np.log(a), np.log(found[2])))
        return [float(np.corrcoef(x, y)[0, 1]) for x, y in pairs]


def against_py_irt(python: str, seeds: int, epochs: int = 1000) -> dict[str, Any]:
    rows: dict[str, list[Any]] = {"ours": [], "py_irt": [], "seconds": [], "negative_a": []}
    for seed in range(seeds):
        _, theta, a, b, answers = world(seed)
        began = time.perf_counter()
        ours = fit(answers)
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            table, out = Path(folder) / "table.jsonl", Path(folder) / "out.json"
            table.write_text(
                "".join(
                    json.dumps({"subject_id": f"m{i}", "responses": {f"i{j}": int(x) for j, x in enumerate(row)}})
                    + "\n"
                    for i, row in enumerate(answers)
                )
            )
            subprocess.run(
                [python, "-c", PY_IRT, str(table), str(out), str(epochs)], check=True, capture_output=True, timeout=900
            )
            end = time.perf_counter()
            made = json.loads(out.read_text())
        theirs = tuple(
            np.array([made[key][f"{letter}{k}"] for k in range(count)])
            for key, letter, count in (("ability", "m", theta.size), ("b", "i", a.size), ("a", "i", a.size))
        )
        rows["ours"].append(recovery(theta, a, b, (ours.ability, ours.b, ours.a)))
        rows["py_irt"].append(recovery(theta, a, b, theirs))  # type: ignore[arg-type]
        rows["seconds"].append((middle - began, end - middle))
        rows["negative_a"].append(int(np.sum(theirs[2] <= 0)))
    return {
        **rows,
        "epochs": epochs,
        "means": {k: np.nanmean(rows[k], 0).tolist() for k in ("ours", "py_irt", "seconds")},
    }


# ---- all of it


def _say(made: dict[str, Any]) -> None:
    where = f"GSM8K, simulated models' spread {made['spread']:g}"
    for kind in ("chosen", "random", "random_irt"):
        one = made[kind]
        tau, order = one["tau"], one["in_order"]
        print(
            f"{where}, 50 {kind:10}: accuracy off by {100 * one['error']:.1f} points; Kendall {tau[0]:.2f} [{tau[1]:.2f}, "
            f"{tau[2]:.2f}]; all four in order in {order[0]:.0%} [{order[1]:.0%}, {order[2]:.0%}] of {made['draws']} draws"
        )
    off = made["ability_error"]
    print(
        f"{where}: ability off by {off['chosen']:.2f} chosen, {off['random']:.2f} random; the predicted 95 % interval (± "
        f"{100 * made['interval_half_width']:.0f} points) held the accuracy in {made['interval_coverage']:.0%} of {made['draws']} draws × 4 "
        f"models, the item model's own in {made['interval_coverage_unwidened']:.0%}",
        flush=True,
    )


def section(folder: Path | None, seeds: int = 20, python: str | None = None) -> dict[str, Any]:
    """Every measurement; prints a line each as it is done."""
    found: dict[str, Any] = {"needed": []}
    for batch in (1, 10):
        made = needed(seeds, batch)
        found["needed"].append(made)
        for row in made["rows"]:
            print(
                f"{row['chosen']:4d} chosen, {batch:2d} at once: error {row['error']:.3f} (random {row['error_random']:.3f}); as good "
                f"as {row['random']:.0f} random; ratio {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]; intervals hold "
                f"{row['coverage']:.1%} (the item model's own {row['coverage_unwidened']:.1%})",
                flush=True,
            )
    if folder is not None:
        graded = real_answers(folder)
        found["real"] = [real(*graded, max(2, seeds // 4), spread) for spread in (SPREAD, 1.5)]
        for made in found["real"]:
            _say(made)
    if python is not None:
        found["py_irt"] = made = against_py_irt(python, min(seeds, 5))
        for name in ("ours", "py_irt"):
            theta, b, a = made["means"][name]
            print(
                f"{name:7}: recovery {theta:.3f} ability, {b:.3f} difficulty, {a:.3f} log discrimination", flush=True
            )
        print(f"seconds a fit: {made['means']['seconds'][0]:.1f} and {made['means']['seconds'][1]:.1f}")
    return found


def add(parser: argparse.ArgumentParser) -> None:
    """The options of this section."""
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", default=os.environ.get("POSTTRAIN_BENCHMARKS"), help="folder with GSM8K's files")
    parser.add_argument("--py-irt", metavar="PYTHON", help="an interpreter that has py-irt")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from posttrain.rundir import write_json

    found = section(Path(arguments.data) if arguments.data else None, arguments.seeds, arguments.py_irt)
    write_json(ROOT / "scripts" / "results" / "bench_evaluation_adaptive.json", found)
    return 0


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add(parser)
    return run(parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
