import re
from pathlib import Path

import rewards.format
import rewards.length
import rewards.math

README = (Path(rewards.math.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_example_runs():
    code = re.search(r"```python\n(# my_rewards\.py.*?)```", README, re.DOTALL)[1]
    names = {}
    exec(code, names)
    assert names["brevity"](["a" * 300, [{"role": "assistant", "content": "a" * 600}]], answer=["1", "2"]) == [
        1.0,
        0.5,
    ]


def test_every_shipped_reward_is_in_the_table():
    shipped = {
        f"{module.__name__}:{name}"
        for module in (rewards.math, rewards.format, rewards.length)
        for name, thing in vars(module).items()
        if callable(thing)
        and getattr(thing, "__module__", "") == module.__name__
        and "columns" in thing.__annotations__
    }
    assert shipped - {"rewards.math:judge"} == set(re.findall(r"^\| `(rewards\.[\w.]+:\w+)` \|", README, re.MULTILINE))
    assert len(shipped) == 6


def test_the_rubric_in_the_readme_is_one(tmp_path):
    from rewards.criteria import reading

    file = tmp_path / "rubric.yaml"
    file.write_text(re.search(r"```yaml\n(- \{criterion.*?)```", README, re.DOTALL)[1])
    found = reading.yaml_file(file)
    assert [(c.points, c.check and c.check.kind) for c in found] == [(5, "regex"), (7, None), (-8, None)]


def test_every_check_and_setting_of_a_judge_is_in_the_readme():
    import dataclasses

    from rewards.criteria.checks import OPTIONS
    from rewards.judge import JudgeSettings

    table = README.split("| `check` | met if |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `\{(\w+):", table, re.MULTILINE)) == set(OPTIONS)
    judge = README.split("## The judge")[1].split("\n## ")[0]
    assert {f.name for f in dataclasses.fields(JudgeSettings)} <= set(re.findall(r"`(\w+)`", judge))


def test_the_judge_in_the_readme_rules(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "judges"))
    import judge_server

    server = judge_server.Server(lambda n, body: '{"explanation": "20 mg", "criteria_met": true}')
    code = re.search(r"```python\n(import asyncio.*?)```", README, re.DOTALL)[1]
    exec(code.replace("http://127.0.0.1:8000/v1", server.url), {})
    server.stop()
    assert capsys.readouterr().out == "met 20 mg\n"
