"""The system's description of this machine's processor."""

from __future__ import annotations

from pathlib import Path


def processor_fact(*names: str) -> str:
    """Return what stands under any of these names in /proc/cpuinfo, of the first core; nothing if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    facts = [line.partition(":")[2].strip() for line in lines if line.startswith(names)]
    return facts[0] if facts else ""
