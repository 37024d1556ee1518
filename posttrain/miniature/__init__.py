"""Tiny models and synthetic tasks, trained from scratch on a CPU: the embedded default and the test bed."""
