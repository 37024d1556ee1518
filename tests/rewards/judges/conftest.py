from pathlib import Path

import pytest


@pytest.fixture
def judge_server(monkeypatch):
    """The module with the endpoint whose judge is code."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import judge_server

    return judge_server


@pytest.fixture
def serve(judge_server, monkeypatch):
    """Starts an endpoint that does to its n-th request what a script says; ended with the test. Pauses are short."""
    from rewards.judges import client

    monkeypatch.setattr(client, "FIRST", 0.01)
    monkeypatch.setattr(client, "LONGEST", 0.1)
    started = []

    def start(script=lambda n, body: None, port=0):
        started.append(judge_server.Server(script, port))
        return started[-1]

    yield start
    for server in started:
        server.stop()
