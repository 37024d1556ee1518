"""What samples say: estimates with intervals, curves over the number of samples, tests, power. numpy and scipy only.

Every module works on plain numbers (scores by problem, answer classes); files and models are for the modules above.
"""
