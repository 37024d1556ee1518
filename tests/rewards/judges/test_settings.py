import pytest

from rewards.judges import key, settings
from rewards.judges.client import Client


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "model is missing"),
        ({"model": " "}, "model should name"),
        ({"model": "m", "modell": 1}, "unknown modell; known are model, url"),
        ({"model": "m", "url": "localhost:8000"}, "url should begin with http"),
        (
            {"model": "m", "url": "https://me:s3cret@h/v1"},
            "url should hold no user or password; put the key into POSTTRAIN",
        ),
        ({"model": "m", "mode": "batch"}, "mode should be one of criterion, response"),
        ({"model": "m", "votes": 2}, "votes should be odd"),
        ({"model": "m", "votes": 3}, "3 votes at temperature 0 are one vote"),
        ({"model": "m", "votes": True}, "votes should be a whole number, not True"),
        ({"model": "m", "timeout": 0}, "timeout should be above 0"),
        ({"model": "m", "temperature": float("nan")}, "temperature should be a number, not nan"),
        ({"model": "m", "extra": []}, "extra should be a mapping"),
        ({"model": "m", "extra": {"seed": 3}}, "extra.seed is not for extra; set seed"),
        ({"model": "m", "extra": {"max_tokens": 9}}, "extra.max_tokens is not for extra; set max_tokens"),
        ({"model": "m", "extra": {"response_format": None}}, "extra.response_format is not for extra; set structured"),
        ({"model": "m", "extra": {"messages": []}}, "extra.messages is not for extra"),
        ({"model": "m", "extra": {"stream": True}}, "extra.stream is not for extra"),
        ({"model": "m", "extra": {"x": float("nan")}}, "extra cannot be sent as JSON"),
        ({"model": "m", "extra": {"x": {1, 2}}}, "extra cannot be sent as JSON"),
        ({"model": "m", "api_key_env": "s3cret-word"}, "api_key_env should be the name of an environment variable"),
        ({"model": "m", "api_key_env": ""}, "api_key_env should be the name of an environment variable"),
        ({"model": "m", "url": "http://"}, "names no host"),
        ({"model": "m", "url": "http://a b/v1"}, "names no host"),
        ({"model": "m", "url": "http://h:99999/v1"}, "cannot be read: Port out of range"),
        ({"model": "m", "url": "http://me:s3cret@h:99999/v1"}, "no user or password"),
        ({"model": "m", "url": "me:s3cret@h/v1"}, "no user or password"),
        ({"model": "m", "requests_per_minute": 0}, "requests_per_minute should be above 0"),
        ({"model": "m", "concurrency": 0}, "concurrency should be 1 or more"),
        ({"model": "m", "show_points": 1}, "show_points should be true or false"),
        ([], "should be a mapping"),
        ("/none.yaml", "cannot be read"),
    ],
)
def test_refusals(value, words):
    with pytest.raises(ValueError, match=r"^judge: ") as caught:
        settings.read(value)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_from_yaml(tmp_path):
    file = tmp_path / "judge.yaml"
    file.write_text("model: m\nurl: http://127.0.0.1:1/v1\ntemperature: 1\nvotes: 3\nseed: null\n")
    found = settings.read(str(file))
    assert (found.model, found.votes, found.temperature, found.seed) == ("m", 3, 1, None)


def test_a_setting_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "judge.yaml"
    file.write_text("model: m\nvotes: 1\nvotes: 3\ntemperature: 1\n")
    with pytest.raises(ValueError, match=r"^judge: .*judge\.yaml is not YAML: 'votes' stands twice"):
        settings.read(str(file))


def test_a_file_does_not_choose_among_all_variables(tmp_path):
    file = tmp_path / "judge.yaml"
    file.write_text("model: m\nurl: http://127.0.0.1:1/v1\napi_key_env: GITHUB_TOKEN\n")
    with pytest.raises(
        ValueError, match=r"^judge: .*judge\.yaml: api_key_env should begin with POSTTRAIN_, not 'GITHUB_TOKEN'$"
    ):
        settings.read(str(file))


def test_the_key(monkeypatch, tmp_path):
    monkeypatch.delenv("K", raising=False)
    monkeypatch.delenv("K_FILE", raising=False)
    assert key.read("K") is None
    file = tmp_path / "key"
    file.write_text("from-file\n")
    monkeypatch.setenv("K_FILE", str(file))
    assert key.read("K") == "from-file"
    monkeypatch.setenv("K", "from-env")
    assert key.read("K") == "from-env"
    for bad in ("two words", "schlüssel", "x" * 5000):
        monkeypatch.setenv("K", bad)
        with pytest.raises(ValueError, match="one word of plain characters; it is not shown") as caught:
            key.read("K")
        assert bad not in str(caught.value)
    monkeypatch.delenv("K")
    file.write_text("\n")
    with pytest.raises(ValueError, match="the file is empty"):
        key.read("K")
    monkeypatch.setenv("K_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        key.read("K")


def test_a_hosted_judge_needs_a_key(monkeypatch):
    monkeypatch.delenv("POSTTRAIN_JUDGE_KEY", raising=False)
    with pytest.raises(ValueError, match="needs a key; put it into POSTTRAIN_JUDGE_KEY"):
        Client(settings.read({"model": "m"}))
