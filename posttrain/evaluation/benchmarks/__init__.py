"""Benchmarks by short name. A recipe or the command line may give any import path of a `Benchmark` instead."""

BENCHMARKS = {
    "gsm8k": "posttrain.evaluation.benchmarks.gsm8k:benchmark",
    "math500": "posttrain.evaluation.benchmarks.math500:benchmark",
    "aime24": "posttrain.evaluation.benchmarks.aime24:benchmark",
    "aime25": "posttrain.evaluation.benchmarks.aime25:benchmark",
    "amc23": "posttrain.evaluation.benchmarks.amc23:benchmark",
    "minerva_math": "posttrain.evaluation.benchmarks.minerva_math:benchmark",
    "olympiadbench": "posttrain.evaluation.benchmarks.olympiadbench:benchmark",
    "arithmetic": "posttrain.evaluation.benchmarks.arithmetic:benchmark",
    "behaviours": "posttrain.evaluation.benchmarks.behaviours:benchmark",
    "behaviours_joint": "posttrain.evaluation.benchmarks.behaviours:joint",
}
