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
