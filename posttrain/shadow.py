"""Our packages have everyday names. With `-m` the working directory comes first on the path, so a user's own
`rewards.py` hides `rewards`; say so instead of failing on the first import from it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from posttrain.errors import Mistake


def refuse() -> None:
    """Raises:
    Mistake: `rewards` or `rollouts` would be imported from somewhere else than beside this package.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("rewards", "rollouts"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin != home / name / "__init__.py":
            found = origin or "nothing"
            raise Mistake(f'the package "{name}" is hidden by {found}; rename that file or folder (my_{name}.py, say)')


def leave_working_directory() -> None:
    """Take the working directory off Python's path, unless our packages are there: nothing lying in it is imported from now on."""
    home = Path(__file__).resolve().parent.parent
    here = Path.cwd().resolve()
    if here != home:
        sys.path[:] = [p for p in sys.path if p and Path(os.path.abspath(p)).resolve() != here]
