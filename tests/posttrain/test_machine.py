"""What the machine has left and has done, against others who count it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from posttrain.machine import host_memory, processor_seconds

ROOT = Path(__file__).resolve().parents[2]


def test_memory_that_can_still_be_had():
    """Against `free`, which reads it for itself (and knows nothing of a container's limit)."""
    lines = subprocess.run(["free", "-b"], capture_output=True, text=True, check=True).stdout.split("\n")
    total, available = int(lines[1].split()[1]), int(lines[1].split()[-1])
    assert 0 < host_memory() <= total
    assert host_memory() <= available + total // 4  # the machine does not stand still in between


def test_a_limit_of_the_container_counts(tmp_path, monkeypatch):
    """Files of the kernel's form, since nobody can limit a test that runs already."""
    import posttrain.machine as machine

    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(machine, "LIMITS", ((str(limit), str(used)),))
    unlimited = host_memory()
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert host_memory() > unlimited // 2
    limit.write_text("1001000\n")
    assert host_memory() == 1_000_000
    used.write_text("2001000\n")
    assert host_memory() == 0


def test_what_this_process_holds():
    """Pages that a new process maps and touches: this one would take again what it has freed."""
    code = (
        "import mmap\nfrom posttrain.machine import resident\nheld = mmap.mmap(-1, 64 << 20)\nbefore = resident()\n"
        "for page in range(0, 64 << 20, 4096): held[page] = 1\nprint(resident() - before)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (64 << 20) * 0.99 < int(ended.stdout) < (64 << 20) * 1.2


def test_processor_time_of_living_children_counts():
    """A child that works for half a second of its own processor time, says so, and lives on."""
    code = (
        "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\nimport sys; sys.stdin.read()"
    )
    before = processor_seconds()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"done\n"
        living = processor_seconds()
        child.stdin.close()
    ended = processor_seconds()
    assert living - before > 0.45
    assert abs(ended - living) < 0.45  # not counted twice
