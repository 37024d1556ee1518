"""`posttrain VERB ...`: each verb is a function, and reads only what it needs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain import __version__, exits, keys, shadow, terminal
from posttrain.errors import Mistake
from posttrain.launch import FLAGS, Launch, read_words


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 the user's mistake, 3 stopped by an alarm, 1 our fault."""
    options = parser().parse_args(argv)

    def do() -> object:
        if getattr(options, "no_code", False):
            shadow.leave_working_directory()
        if options.do is not doctor_command:  # which finds hidden packages among other things
            shadow.refuse()
        if hasattr(options, "trust_remote_code"):
            from posttrain import models

            models.trust_remote_code(options.trust_remote_code)
        return options.do(options)

    return exits.guarded(do)


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(prog="posttrain", description=__doc__.split("\n")[0].replace("`", ""))
    top.add_argument("--version", action="version", version=f"posttrain {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = _verb(verbs, "train", train_command, "print and run the accelerate command for a recipe")
    train.add_argument("--accelerate", metavar="FILE", help="an accelerate config file (recipes/accelerate/*.yaml)")
    train.add_argument("--processes", type=int, metavar="N", help="number of training processes")
    for name, does in FLAGS.items():
        train.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=does)
    _recipe(train)

    plan = _verb(verbs, "plan", plan_command, "check a recipe and show what it would do, without training")
    plan.add_argument("--processes", type=int, default=1, metavar="N", help="plan for this many training processes")
    plan.add_argument("--shape-only", action="store_true", help="check the file alone: no data, no tokenizer")
    plan.add_argument("--no-code", action="store_true",
                      help="for a recipe of someone else's: show and check it without importing, loading or asking anything "
                      "that it names")  # fmt: skip
    _trust(plan)
    _recipe(plan)

    serve = _verb(verbs, "serve", serve_command, "print or run the vLLM server command that fits a recipe")
    serve.add_argument("--run", action="store_true", help="start the server instead of printing the command")
    _trust(serve)
    serve.add_argument("--port", type=int, help="which of the recipe's servers (by its port); absent: all of them")
    _recipe(serve)

    rewards = _verb(verbs, "rewards", None, "try reward functions")
    check = _verb(rewards.add_subparsers(required=True, metavar="VERB"), "check", rewards_command,
                  "run a reward function on sample rows: scores, timing, faults")  # fmt: skip
    check.add_argument("reward", help="import path: module:function or file.py:function")
    check.add_argument("--data", metavar="FILE", help="json, jsonl, csv or parquet with a `completion` column")
    check.add_argument("--with", dest="arguments", action="append", default=[], metavar="KEY=VALUE")
    check.add_argument("--limit", type=int, default=20, metavar="N", help="rows to run (default 20)")
    check.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="limit for one call")

    evaluate = _verb(verbs, "evaluate", evaluate_command, "sample a benchmark and grade it")
    evaluate.add_argument("--model", help="hub id, directory, or miniature/arithmetic")
    evaluate.add_argument("--adapter", metavar="DIR", help="a PEFT adapter on top of it")
    evaluate.add_argument("--benchmark", help="gsm8k, math500, aime24, aime25, amc23, minerva_math, olympiadbench, arithmetic, "
                          "behaviours, behaviours_joint, a file of `benchmark build`, or an import path (file.py:name)")  # fmt: skip
    evaluate.add_argument("--engine", default="transformers",
                          help="transformers (default), vllm, vllm-server or an import path")  # fmt: skip
    evaluate.add_argument("--engine-with", action="append", default=[], metavar="KEY=VALUE",
                          help="engine option, for instance urls=[http://127.0.0.1:8000]; may be given again")  # fmt: skip
    evaluate.add_argument("--samples", type=int, default=1, metavar="K", help="samples a problem (default 1)")
    evaluate.add_argument("--temperature", type=float, default=0.0, help="0 = greedy (default)")
    evaluate.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling (default 1 = off)")
    evaluate.add_argument("--top-k", type=int, default=0, help="only the k likeliest tokens (default 0 = off)")
    evaluate.add_argument("--min-p", type=float, default=0.0,
                          help="drop tokens below this share of the likeliest (default 0 = off)")  # fmt: skip
    evaluate.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="longest answer (default 1024)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first problems")
    evaluate.add_argument("--data", metavar="PATH", help="local file instead of the hub")
    evaluate.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"],
                          help="of the weights, where the engine loads them (default float32)")  # fmt: skip
    evaluate.add_argument("--seed", type=int, default=0, help="every request's seed comes from it (default 0)")
    evaluate.add_argument("--style", help="prompt style: boxed, boxed-system, last-line, question, raw, text or own (default: the "
                          "benchmark's own)")  # fmt: skip
    evaluate.add_argument("--shots", type=int, metavar="N", help="solved examples before each question (default 0)")
    evaluate.add_argument("--shots-from", metavar="PATH",
                          help="file with the benchmark's columns to draw them from (default: its training part)")  # fmt: skip
    evaluate.add_argument("--until-interval", type=float, metavar="POINTS",
                          help="ask problems in random order until the accuracy is known to so many points on either side, with an "
                          "interval that holds whenever it is looked at")  # fmt: skip
    evaluate.add_argument("--chunk", type=int, metavar="N",
                          help="requests handed to the engine at once; what a kill can lose (default 256 and, where that is quick, more; 64 with --until-interval)")  # fmt: skip
    evaluate.add_argument("--device", metavar="NAME", help='what a server computes on, for the cost: "2 x H100"')
    evaluate.add_argument(
        "--flops-per-byte", type=float, metavar="I", help="of the device, for eFLOPs (default: by its name)"
    )
    evaluate.add_argument(
        "--template-arg", action="append", default=[], metavar="KEY=VALUE", help="for the chat template"
    )
    evaluate.add_argument("--adaptive", action="store_true",
                          help="ask the items of a bank that say most about this model, until --items or --se")  # fmt: skip
    evaluate.add_argument(
        "--bank", metavar="PATH", help="with --adaptive: item bank of the benchmark (posttrain irt fit)"
    )
    evaluate.add_argument("--items", type=int, metavar="N", help="with --adaptive: at most so many items (default 50)")
    evaluate.add_argument("--batch", type=int, metavar="M", help="with --adaptive: items asked at once (default 10)")
    evaluate.add_argument(
        "--se", type=float, metavar="X", help="with --adaptive: stop once the ability's error is below this"
    )
    _trust(evaluate)
    evaluate.add_argument("--out", metavar="DIR",
                          help="where samples and result go; the same folder again goes on where it was cut off "
                          "(default: a new one under evaluations/)")  # fmt: skip
    evaluate.add_argument("--regrade", metavar="DIR",
                          help="judge the samples of a finished evaluation again, and ask nothing; --benchmark and --data only "
                          "if they are other ones now")  # fmt: skip

    compare = _verb(
        verbs, "compare", compare_command, "paired tests of evaluations against a baseline: better, worse or neither"
    )
    compare.add_argument("baseline", metavar="A",
                         help="an evaluation's folder, a run's (its last evaluation of each benchmark), or a file of "
                         "lm-evaluation-harness (samples_*.jsonl) or lighteval (details_*.parquet); several training runs of "
                         "one recipe: A1,A2,A3 or NAME=A1,A2,A3")  # fmt: skip
    compare.add_argument(
        "others", nargs="+", metavar="B", help="likewise; each is compared with A on every benchmark that both have"
    )
    compare.add_argument("--anyway", action="store_true", help="although prompts, grader or problems differ")
    compare.add_argument("--metric", action="append", default=[], metavar="NAME",
                         help="which score to take from files of other harnesses that have several; may be given for each of "
                         "several tasks")  # fmt: skip
    compare.add_argument(
        "--out", metavar="PATH", help="folder or .json file for comparison.json (default: with the last B)"
    )

    irt = _verb(verbs, "irt", None, "item banks for adaptive evaluation")
    fit = _verb(irt.add_subparsers(required=True, metavar="VERB"), "fit", irt_fit_command,
                "fit an item bank to the answers of many models")  # fmt: skip
    fit.add_argument("responses", nargs="+", metavar="RESPONSES",
                     help="tables (.jsonl: a line a model; .csv: a row an item, a column a model) or folders of evaluations")  # fmt: skip
    fit.add_argument("--out", required=True, metavar="BANK", help="where the bank goes, one JSON file")
    fit.add_argument(
        "--benchmark", help="whose items they are: texts and answers are kept as digests, row numbers get ids"
    )
    fit.add_argument("--data", metavar="PATH", help="local file with the benchmark's rows instead of the hub")

    own = _verb(verbs, "benchmark", None, "benchmarks of one's own")
    build = _verb(own.add_subparsers(required=True, metavar="VERB"), "build", benchmark_build_command,
                  "questions about documents, each proved by a quotation: a file for `evaluate --benchmark`")  # fmt: skip
    build.add_argument("documents", nargs="+", metavar="DOCS", help="text files (.txt, .md, .rst) or folders of them")
    build.add_argument("--model", required=True, action="append", metavar="URL_OR_ENGINE",
                       help="(again for further writers: each is asked about everything) who writes the questions: an OpenAI-compatible endpoint (http://host:port/v1; its key in the "
                       "variable POSTTRAIN_WRITER_KEY, or the file that POSTTRAIN_WRITER_KEY_FILE names), or an engine")  # fmt: skip
    build.add_argument("--model-name", action="append", default=[], metavar="NAME",
                       help="the endpoint's model; of an engine: hub id or directory. With several --model, one for each")  # fmt: skip
    build.add_argument("--api-key-env", action="append", default=[], metavar="NAME",
                       help="another variable for the endpoint's key; with several --model, one for all or one for each")  # fmt: skip
    build.add_argument("--engine-with", action="append", default=[], metavar="KEY=VALUE", help="engine option")
    build.add_argument("--out", required=True, metavar="FILE.jsonl",
                       help="the benchmark; its journal, report and drops go beside it. The same command again goes on where "
                       "it was cut off")  # fmt: skip
    build.add_argument("--kinds", default="both", choices=["open", "choice", "both"], help="default: both")
    build.add_argument("--questions", type=int, default=5, metavar="N", help="of each kind, a chunk (default 5)")
    build.add_argument("--chunk-tokens", type=int, metavar="N", help="length of a chunk")
    build.add_argument("--chunk-overlap", type=int, metavar="N")
    build.add_argument("--tokenizer", metavar="ID", help="whose tokens are counted (default: words)")
    build.add_argument("--chunks", type=int, metavar="N",
                       help="ask about so many single chunks only, drawn by --seed (0: only groups)")  # fmt: skip
    build.add_argument("--multi-hop", type=int, default=0, metavar="N",
                       help="ask about N groups of chunks of one document too; such questions need two of them")  # fmt: skip
    build.add_argument(
        "--cross-document", type=int, default=0, metavar="N", help="the same with N groups across documents"
    )
    build.add_argument("--hops", metavar="A-B", help="chunks of a group (default 2-5)")
    build.add_argument("--types", metavar="A,B", help="types of questions: factual, numeric, definition, comparison, cause, "
                       "procedure (default: any)")  # fmt: skip
    build.add_argument("--difficulty", metavar="A-B", help="ask for questions of this estimated difficulty, 1 to 10")
    build.add_argument("--instructions", metavar="TEXT", help="further wishes, in words (@FILE: from a file)")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--temperature", type=float, help="default: the endpoint's own; 0.7 with an engine")
    build.add_argument("--max-tokens", type=int, default=4096, metavar="N", help="of one reply")
    build.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at once (default 16)")
    build.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one request")
    build.add_argument("--retries", type=int, default=4, metavar="N")
    build.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of an engine")
    _trust(build)

    judge = _verb(verbs, "judge", None, "models that judge")
    trust = _verb(judge.add_subparsers(required=True, metavar="VERB"), "check", judge_check_command,
                  "how far a judge can be trusted: agreement with labels, bias, self-consistency, injections")  # fmt: skip
    trust.add_argument("examples", nargs="?", metavar="FILE.jsonl",
                       help="labelled examples, one a line: prompt, response, criterion, label (true or false), and if wanted points, id, "
                       "check (default: a small set that comes with posttrain, labelled by code)")  # fmt: skip
    trust.add_argument("--url", help="the judge's endpoint, ending in /v1 (default: OpenAI's); its key in the variable "
                       "POSTTRAIN_JUDGE_KEY, or the file that POSTTRAIN_JUDGE_KEY_FILE names")  # fmt: skip
    trust.add_argument("--model", help="the judge's name there")
    trust.add_argument(
        "--judge", metavar="FILE", help="YAML file with a judge's settings, as a rubric reward has them"
    )
    trust.add_argument("--with", dest="arguments", action="append", default=[], metavar="KEY=VALUE",
                       help="another setting of the judge: temperature=0.7, votes=3, mode=response, cache=FILE, ...")  # fmt: skip
    trust.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="times that each is asked, for self-consistency"
    )
    trust.add_argument(
        "--injections", type=int, default=2, metavar="N", help="examples for each attack (default 2; 0: none)"
    )
    trust.add_argument("--limit", type=int, metavar="N", help="only the first examples")
    trust.add_argument("--out", default="judge_check.json", metavar="FILE", help="default: judge_check.json")

    data = _verb(verbs, "data", None, "trajectories and rows")
    hand_out = _verb(data.add_subparsers(required=True, metavar="VERB"), "export", data_export,
                     "write a run's rollouts as agents' trajectories")  # fmt: skip
    hand_out.add_argument("run", help="the run's folder")
    hand_out.add_argument(
        "--format", default="atif", choices=["atif", "adp"], help="ATIF keeps token ids and log-probs (default)"
    )
    hand_out.add_argument("--out", metavar="FILE", help="default: rollouts-FORMAT.jsonl in the run's folder")

    report = _verb(verbs, "report", report_command, "write the page of a run (again)")
    report.add_argument("run", help="the run's folder")

    _verb(verbs, "doctor", doctor_command, "check this machine: versions, devices, vLLM, room, names, caches, the hub")

    recipes = _verb(verbs, "recipes", None, "the recipes that come with posttrain")
    shelf = recipes.add_subparsers(required=True, metavar="VERB")
    _verb(shelf, "ls", recipes_ls, "list them")
    copy = _verb(shelf, "cp", recipes_cp, "copy one, and the files it needs, to edit")
    copy.add_argument("name")
    copy.add_argument("to", nargs="?", default=".", help="folder (default: here)")
    _verb(shelf, "schema", recipes_schema, "print the JSON schema of recipes, for editors")
    return top


def _verb(parent: Any, name: str, do: Any, help: str) -> argparse.ArgumentParser:
    made = parent.add_parser(name, help=help, description=help)
    if do is not None:
        made.set_defaults(do=do)
    return made


def _trust(made: argparse.ArgumentParser) -> None:
    made.add_argument("--trust-remote-code", action="store_true", help=FLAGS["trust_remote_code"])


def _recipe(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", help="recipe file")
    made.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")


def train_command(options: argparse.Namespace) -> None:
    from posttrain.recipe.reading import load
    from posttrain.watch import launched

    launch = Launch(options.recipe, tuple(options.overrides), **{name: getattr(options, name) for name in FLAGS})
    read_words(launch.words())
    load(options.recipe, options.overrides)  # a mistake in the file shows in milliseconds, before anything starts
    command = [sys.executable, "-m", "posttrain.watch.accelerated"]
    if options.accelerate:
        command += ["--config_file", options.accelerate]
    if options.processes:
        command += ["--num_processes", str(options.processes)]
    command += ["-m", "posttrain.train", *launch.words()]
    shown = ["accelerate", "launch", *command[3:]]
    print(terminal.clean(f"$ {shlex.join(shown)}"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        code_file = Path(folder) / "code"
        status = launched.run(command, {**os.environ, exits.CODE_FILE: str(code_file)})
        if status:
            raise SystemExit(int(code_file.read_text()) if code_file.exists() else status)


def plan_command(options: argparse.Namespace) -> None:
    from posttrain.recipe.reading import read

    if options.no_code and options.trust_remote_code:
        raise Mistake("--no-code runs no code and --trust-remote-code lets it run; give one of them")
    loaded = read(options.recipe, options.overrides)
    if options.no_code:
        from posttrain import stranger

        return stranger.show(loaded)
    from posttrain import preview

    preview.show(loaded, processes=options.processes, shape_only=options.shape_only)


def serve_command(options: argparse.Namespace) -> None:
    from posttrain.recipe.reading import load
    from posttrain.serve import serve

    if code := serve(load(options.recipe, options.overrides), run=options.run, port=options.port):
        raise SystemExit(code)


def rewards_command(options: argparse.Namespace) -> None:
    from posttrain.preview import try_reward

    try_reward(
        options.reward,
        arguments=_pairs(options.arguments, "--with"),
        data=options.data,
        limit=options.limit,
        timeout=options.timeout,
    )


MORE = ("shots", "shots_from", "until_interval", "chunk", "device", "flops_per_byte")
"""Settings of an evaluation that are only passed on if they are given."""


def evaluate_command(options: argparse.Namespace) -> None:
    from posttrain import assess

    if options.regrade is not None:
        absent = vars(parser().parse_args(["evaluate", "--regrade", options.regrade]))
        free = ("benchmark", "data", "do")
        if other := next((n for n, value in vars(options).items() if n not in free and value != absent[n]), None):
            name = other.replace("_", "-")
            raise Mistake(f"--{name} does not go with --regrade, which takes the evaluation as it was made")
        return assess.regrade_folder(options.regrade, benchmark=options.benchmark, path=options.data)
    for name in ("model", "benchmark"):
        if getattr(options, name) is None:
            raise Mistake(f"--{name} is missing")
    assess.evaluate_checkpoint(
        model=options.model,
        adapter=options.adapter,
        benchmark=options.benchmark,
        engine=options.engine,
        engine_options=_pairs(options.engine_with, "--engine-with"),
        samples=options.samples,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        max_tokens=options.max_tokens,
        limit=options.limit,
        path=options.data,
        dtype=options.dtype,
        seed=options.seed,
        style=options.style,
        **{name: value for name in MORE if (value := getattr(options, name)) is not None},
        template_args=_pairs(options.template_arg, "--template-arg"),
        out=options.out,
        **_adaptive(options),
    )


def _adaptive(options: argparse.Namespace) -> dict[str, Any]:
    """`bank` and `rule` of an adaptive evaluation; nothing for a full one."""
    given = {name: value for name in ("items", "batch", "se") if (value := getattr(options, name)) is not None}
    if not options.adaptive:
        if unused := ["bank"] * (options.bank is not None) + list(given):
            raise Mistake(f"--{unused[0]} belongs to --adaptive; give that too")
        return {}
    if options.bank is None:
        raise Mistake("--adaptive needs an item bank: --bank PATH (made by posttrain irt fit)")
    from posttrain.evaluation.adaptive.loop import Rule

    try:
        return {"bank": options.bank, "rule": Rule(**given)}
    except ValueError as error:
        raise Mistake(f"--adaptive: {error}") from error


def compare_command(options: argparse.Namespace) -> None:
    from posttrain.evaluation.run import compare_command as compare

    compare(options.baseline, *options.others, anyway=options.anyway, metrics=options.metric, out=options.out)


def irt_fit_command(options: argparse.Namespace) -> None:
    from posttrain.evaluation.adaptive.calibrate import fit_command

    fit_command(options.responses, options.out, benchmark=options.benchmark, data=options.data)


def benchmark_build_command(options: argparse.Namespace) -> None:
    from posttrain.evaluation.building.command import build_command, span, words

    plan = {
        "questions": options.questions,
        "length": options.chunk_tokens,
        "overlap": options.chunk_overlap,
        "most": options.chunks,
        "multi_hop": options.multi_hop,
        "cross_document": options.cross_document,
        "hops": span(options.hops, "--hops"),
        "types": tuple(filter(None, (options.types or "").split(","))),
        "difficulty": span(options.difficulty, "--difficulty"),
        "instructions": words(options.instructions),
        "seed": options.seed,
    }
    build_command(
        options.documents,
        models=options.model,
        out=options.out,
        model_names=options.model_name,
        engine_options=_pairs(options.engine_with, "--engine-with"),
        kinds=options.kinds,
        plan={name: value for name, value in plan.items() if value is not None},
        tokenizer=options.tokenizer,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        concurrency=options.concurrency,
        timeout=options.timeout,
        retries=options.retries,
        dtype=options.dtype,
        api_key_envs=options.api_key_env,
    )


def judge_check_command(options: argparse.Namespace) -> None:
    from posttrain.judging.command import check_command

    check_command(
        options.examples,
        judge=options.judge,
        url=options.url,
        model=options.model,
        more=_pairs(options.arguments, "--with"),
        repeats=options.repeats,
        injections=options.injections,
        limit=options.limit,
        out=options.out,
    )


def data_export(options: argparse.Namespace) -> None:
    from posttrain.data.agents.rollouts import export

    out = Path(options.out) if options.out else Path(options.run) / f"rollouts-{options.format}.jsonl"
    made = export(options.run, options.format, out)
    without = made["rows"] - made["with_tokens"]
    hint = (
        f" ({without} without token ids: the run did not set rollouts.keep_tokens)"
        if options.format == "atif" and without
        else ""
    )
    print(terminal.line(f"{out}: {made['rows']} trajectories{hint}"))


def report_command(options: argparse.Namespace) -> None:
    from posttrain import report

    print(terminal.line(report.build(options.run)))


def doctor_command(options: argparse.Namespace) -> None:
    from posttrain import doctor

    doctor.show()


def recipes_ls(options: argparse.Namespace) -> None:
    from posttrain.recipe.shelf import recipes

    for path in recipes():
        first = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        print(f"{path.name:36} {first}")


def recipes_cp(options: argparse.Namespace) -> None:
    from posttrain.recipe.shelf import copy_recipe

    for path in copy_recipe(options.name, Path(options.to)):
        print(path)


def recipes_schema(options: argparse.Namespace) -> None:
    import json

    from posttrain.recipe.export import schema_json

    print(json.dumps(schema_json(), indent=2))


def _pairs(words: Sequence[str], option: str) -> dict[str, Any]:
    """`key=value` words as a mapping; values are read as a recipe's are."""
    from posttrain.recipe.reading import parse_value

    pairs = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise Mistake(f'{option}: "{keys.hide(word)}" is not key=value')
        if keys.is_secret(key) and key.lower() != "token":
            raise Mistake(
                f"{option} {key}: a key does not belong on a command line, where every user of the machine can read it; let "
                "the code read it from the environment"
            )
        pairs[key] = parse_value(value, f"{option} {key}")
    return pairs


if __name__ == "__main__":
    sys.exit(main())
