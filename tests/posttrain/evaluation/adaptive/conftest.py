"""Simulated models, for every test here."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def simulate():
    spec = importlib.util.spec_from_file_location("adaptive_simulate", Path(__file__).with_name("simulate.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
