"""accelerate's launcher without the traceback that it prints for every exit code: a run that ended itself has said why.

`python -m posttrain.watch.accelerated` takes what `accelerate launch` takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from posttrain import exits


def main() -> int:
    """The exit code of the training processes, where they left one."""
    from accelerate.commands.launch import main as launch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch()
    except (subprocess.CalledProcessError, ChildFailedError):
        left = Path(os.environ.get(exits.CODE_FILE, ""))
        if not left.is_file():
            raise
        return int(left.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
