"""Adaptive evaluation: ability in a two-parameter item response model, from items chosen for the model that is judged.

`bank` (item parameters as a file) comes from `fit` (over `responses` of many models); `loop` chooses (`choose`), takes
answers and estimates (`ability`); `run` does that with an engine. Importing this imports nothing else.

Source: Hofmann et al., Fluid Language Model Benchmarking, arXiv 2509.11106.
"""
