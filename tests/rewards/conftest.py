from pathlib import Path

import pytest


@pytest.fixture
def misbehaving(monkeypatch):
    """The module with the odd reward functions, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import misbehaving

    return misbehaving
