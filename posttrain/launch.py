"""What a launch says besides its recipe: flags that hold for this start alone and stand in no recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import Mistake


@dataclass(frozen=True)
class Launch:
    """One start of a run. Every flag is False unless it was given."""

    recipe: str
    overrides: tuple[str, ...] = ()
    restart: bool = False
    """Begin anew: the folder of an earlier run of the name is moved aside."""
    resume_anyway: bool = False
    """Go on although the recipe, or what it names, has changed since; what changed is recorded in the run."""
    no_preflight: bool = False
    """Skip the checks before the first step."""
    trust_remote_code: bool = False
    """Let code that came with a model run."""

    def words(self) -> list[str]:
        """The command line that says the same."""
        flags = [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(self, name)]
        return [self.recipe, *self.overrides, *flags]


FLAGS: dict[str, str] = {
    "restart": "begin anew; the old run of that name is moved aside",
    "resume_anyway": "go on although the recipe has changed since; the change is recorded",
    "no_preflight": "skip the checks before the first step",
    "trust_remote_code": "let code that came with a model run",
}
"""Name of a flag -> what it does."""

USAGE = "usage: accelerate launch -m posttrain.train RECIPE [key=value ...] " + " ".join(
    f"[--{name.replace('_', '-')}]" for name in FLAGS
)


def read_words(words: Sequence[str]) -> Launch:
    """The launch that a command line asks for.

    Raises:
        Mistake: no recipe, an unknown flag, or flags that contradict each other.
    """
    given: dict[str, Any] = {}
    plain = []
    for word in words:
        if not word.startswith("-"):
            plain.append(word)
            continue
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name not in FLAGS:
            raise Mistake(f"{word}: unknown option; {USAGE}")
        given[name] = True
    if not plain:
        raise Mistake(USAGE)
    if given.get("restart") and given.get("resume_anyway"):
        raise Mistake("--restart begins anew and --resume-anyway goes on; give one of them")
    return Launch(recipe=plain[0], overrides=tuple(plain[1:]), **given)
