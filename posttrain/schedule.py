"""A run's own evaluations: before, during and after, with the run's engine at the trainer's version."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.integrations import INTEGRATION_TO_CALLBACK

from posttrain.errors import Mistake
from posttrain.evaluation import evaluate, find_benchmark
from posttrain.evaluation.adaptive.entry import metrics_line
from posttrain.evaluation.adaptive.loop import Rule
from posttrain.evaluation.adaptive.run import evaluate_adaptive
from posttrain.evaluation.results import Result
from posttrain.metrics import BOOKKEEPING
from posttrain.recipe import Recipe
from posttrain.recipe.schema import Evaluation
from posttrain.rundir import RunDir, append_line, read_lines
from posttrain.trainers.log import Every
from posttrain.trainers.parts import Parts
from rollouts.records import Sampling


class Schedule:
    """When which benchmark is due. All processes call `evaluate`; the main one works, the others wait."""

    def __init__(self, recipe: Recipe, run: RunDir, parts: Parts, trainer: Any):
        self.recipe = recipe
        self.run = run
        self.parts = parts
        self.benchmarks = [
            find_benchmark(entry.benchmark, f"evaluation.{i}.benchmark") for i, entry in enumerate(recipe.evaluation)
        ]
        self.trainer = trainer

    def during(self) -> list[Every]:
        """One for each benchmark with `every`."""
        return [
            Every(entry.every, lambda step, i=i: self._one(i, f"step-{step:06d}"))
            for i, entry in enumerate(self.recipe.evaluation)
            if entry.every
        ]

    def evaluate(self, when: str) -> None:
        """Run the benchmarks that are due `before` or `after`."""
        for i, entry in enumerate(self.recipe.evaluation):
            if getattr(entry, when):
                self._one(i, when)

    def _one(self, index: int, when: str) -> None:
        accelerator = self.trainer.accelerator
        self._refuse_sharded(accelerator)
        there = [(self.run.evaluation(when, self.benchmarks[index].name) / "result.json").exists()]
        broadcast_object_list(there)
        if there[0]:  # an earlier launch of this run was here
            if accelerator.is_main_process:
                self._note(index, when)
            return
        self.parts.follower.follow(self.trainer)
        with self.parts.timer("other"):
            if accelerator.is_main_process:
                self._work(self.recipe.evaluation[index], self.benchmarks[index], when)
                self._note(index, when)
            accelerator.wait_for_everyone()

    def _work(self, entry: Evaluation, benchmark: Any, when: str) -> None:
        recipe = self.recipe
        engine = recipe.rollouts.engine
        chosen = entry.adaptive
        ask: Any = evaluate
        if chosen is not None:
            rule = Rule(items=chosen.items, batch=chosen.batch, se=chosen.se)
            ask = partial(evaluate_adaptive, bank=chosen.bank, rule=rule)
        ask(
            benchmark,
            self.parts.engine,
            self.parts.tokenizer,
            samples=entry.samples,
            sampling=Sampling(
                temperature=entry.temperature,
                top_p=entry.top_p,
                max_tokens=entry.max_tokens or recipe.rollouts.sampling.max_tokens,
                stop=tuple(recipe.rollouts.sampling.stop),
            ),
            limit=entry.limit,
            path=entry.path,
            seed=recipe.run.seed,
            out_dir=self.run.evaluation(when, benchmark.name),
            model_name=recipe.model.name,
            adapter=None if recipe.adapter is None else str(self.run.adapter),
            engine_name=engine if isinstance(engine, str) else engine.use,
            when=when,
            template_args=recipe.model.template_args,
        )

    def _note(self, index: int, when: str) -> None:
        """See that the ability of an adaptive evaluation is in `metrics.jsonl` and told to the trackers. (A launch that goes on may have cut the line
        and kept the result: lines after a boundary are taken back, evaluations of its step are not.)"""
        if self.recipe.evaluation[index].adaptive is None:
            return
        name = self.benchmarks[index].name
        found = Result.read(self.run.evaluation(when, name)).adaptive
        if found is None:
            return
        step = {"before": 0, "after": self.trainer.state.global_step}.get(when)
        line = metrics_line(name, int(when.removeprefix("step-")) if step is None else step, found)
        key = f"adaptive/{name}/ability"
        if not any(r.get("step") == line["step"] and key in r for r in read_lines(self.run.metrics)):
            append_line(self.run.metrics, line)
            self._tell_trackers({name: value for name, value in line.items() if name not in BOOKKEEPING})

    def _tell_trackers(self, numbers: dict[str, Any]) -> None:
        """To those of `run.report_to`, at the trainer's step; everyone else who listens to logs has been told already."""
        trainer = self.trainer
        for listener in trainer.callback_handler.callbacks:
            if isinstance(listener, tuple(INTEGRATION_TO_CALLBACK.values())):
                listener.on_log(trainer.args, trainer.state, trainer.control, logs=dict(numbers), model=trainer.model)

    def _refuse_sharded(self, accelerator: Any) -> None:
        """One process alone cannot use a module that is spread over all of them."""
        plugin = getattr(accelerator.state, "deepspeed_plugin", None)
        sharded = getattr(accelerator.state, "fsdp_plugin", None) is not None or (plugin and plugin.zero_stage == 3)
        if sharded and self.parts.engine.same_numerics:
            raise Mistake(
                "rollouts.engine: transformers cannot evaluate a model that is sharded over processes; "
                "use engine: vllm-server, or leave `evaluation` out and run `posttrain evaluate` on the result"
            )
