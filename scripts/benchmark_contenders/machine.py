"""What the benchmark runs on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from modulab.cores import cpu_count

SCRIPTS = Path(__file__).resolve().parents[1]


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Return what a reader needs to judge the figures, with the graphics card where the device is cuda.

    Raises: LookupError where there is none.
    """
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in ("torch", "lightning", "jax"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise LookupError("torch finds no CUDA device here.")
        versions["cuda"] = torch.version.cuda or "none"
        model = f"{torch.cuda.get_device_name()}, {model}"
    return {
        "processor": model,
        "cores": cpu_count(),
        "load_average": os.getloadavg()[0],
        "versions": versions,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def commit() -> str | None:
    """Return the commit of the sources that are measured, marked where they differ from it."""
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(SCRIPTS),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
    ]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None
