"""What the READMEs say of rubrics and judges is so."""

import re
from pathlib import Path

import pytest
import yaml

from posttrain.judging.attacks import attacks
from posttrain.judging.examples import load

ROOT = Path(__file__).resolve().parents[3]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("## Score with a rubric")[1].split("\n## ")[0]
RECIPE = re.search(r"<<'EOF'\n(.*?)EOF\n", SECTION, re.DOTALL)[1]
MORE = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[1]


@pytest.mark.parametrize("more", ["", MORE], ids=["code", "judge"])
def test_the_recipe_is_one(tmp_path, monkeypatch, more):
    from posttrain.recipe.reading import load as read
    from rewards.rubric import Rubric

    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("rollouts:", f"{more}rollouts:")
    (tmp_path / "rubric.yaml").write_text(text)
    recipe = read("rubric.yaml", [])
    assert recipe.run.name == "rubric"
    reward = Rubric(**yaml.safe_load(text)["rewards"][0]["with"])
    assert reward.check([]) == (4 if more else 3)
    assert (reward.judge is not None) is bool(more)


def test_its_criteria_fit_the_task():
    """Each is met by some demonstration of the miniature's and not by another."""
    import random

    from posttrain.miniature.arithmetic import TASK, Sum
    from rewards.criteria import checks

    rng = random.Random(0)
    texts = [
        TASK.demonstrate(Sum(rng.randint(100, 999), rng.randint(100, 999)), rng, flawed=0.3)[0]["content"]
        for _ in range(60)
    ]
    names, box, long = [
        checks.built(checks.read(one["check"], "x"))
        for one in yaml.safe_load(RECIPE)["rewards"][0]["with"]["criteria"]
    ]
    assert 10 < sum(names(text)[0] for text in texts) < 50
    assert all(box(text)[0] for text in texts)
    assert not box("\\boxed{12} and more")[0]
    assert not any(long(text)[0] for text in texts)


def test_the_numbers_of_the_check():
    text = (ROOT / "rewards" / "README.md").read_text(encoding="utf-8")
    found = load(None)
    prompts = len({one.cluster for one in found})
    assert f"({len(found)} labels on {prompts} prompts)" in text
    assert f"each of {len(attacks())} attacks" in text
