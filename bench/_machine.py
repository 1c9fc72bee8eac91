"""Where and with what it was measured: the header of the results."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench._harness import ROOT, cores

PACKAGES = ["msgspec", "numpy", "pillow", "loky", "mpire", "aiointerpreters", "interpreters-pep-734", "pyperf"]


def header() -> dict[str, object]:
    """Describe the machine, the versions and the moment."""
    return {
        "python": sys.version.split()[0],
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "busy_before": _busy(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _busy() -> float | None:
    """Return how much of all processors is taken by other things, in per cent, if psutil is there to tell."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.cpu_percent(interval=1)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit, marked if anything differs from it but the results and the page."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # not a clone
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
