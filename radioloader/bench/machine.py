"""Facts about the machine, and what this process and its workers use of it."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from typing import Any

import psutil

from radioloader.config import available_cores
from radioloader.storage._compiled import decoder

__all__ = ["available_bytes", "cpu_seconds", "gpu", "machine", "read_bytes", "versions"]

_PACKAGES = ("radioloader", "torch", "tiledb", "numpy", "zstandard", "monai", "torchio")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system, GPU, whether tiles are decoded in C, and the load of the last minute."""
    return {
        "cpu": _cpu(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gpu": gpu(),
        "compiled_reader": decoder is not None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Versions of the packages that bear on the figures; those that are not installed are left out."""
    import radioloader

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"radioloader": radioloader.__version__}  # a checkout on the path has no metadata


def gpu() -> str | None:
    """Name of the GPU that torch uses; None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def available_bytes() -> int:
    """Memory that can be had without swapping, in bytes."""
    return int(psutil.virtual_memory().available)


def cpu_seconds() -> float:
    """Processor time of this process and its living descendants so far, in seconds."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:  # it ended
            continue
        total += spent.user + spent.system
    return float(total)


def read_bytes() -> int | None:
    """Bytes that this process has asked files for, page cache or not; None where the system does not count them."""
    try:
        return int(psutil.Process().io_counters().read_chars)
    except (AttributeError, psutil.Error, OSError):
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
