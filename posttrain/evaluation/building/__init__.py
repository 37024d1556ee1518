"""Benchmarks out of one's own documents (YourBench's idea, 2504.01833): questions that a model writes and the text proves.

documents → chunks → questions (a model) → grounding and gates (no model) → duplicates → a file that `evaluate` reads.
"""
