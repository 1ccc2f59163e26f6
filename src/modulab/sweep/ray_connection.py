"""Connecting to a cluster of Ray, or starting one."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from modulab.errors import ConfigError
from modulab.sweep.output import output_to
from modulab.sweep.shards import tell

STARTED = "started on this machine"
_OBJECT_STORE_BYTES = 80 << 20
"""About the minimum memory of Ray; shards write their results to files."""
_ATTEMPTS = 3
"""How often to ask for a server for this client: Ray 2.60 fails to start it now and then, without a reason."""
_NOT_STARTED = (
    "Starting Ray client server failed", "Proxy failed to Connect to backend",
    "psutil.ZombieProcess", "psutil.NoSuchProcess",  # it has ended before Ray looks at it
)  # fmt: skip


def connect(address: str | None, runtime_env: Any) -> str:
    """Connect to the cluster of an address, unless that is done, and return which it is, in words.

    Without an address it is the one that Ray itself would take: that of RAY_ADDRESS, or of this machine; where there is
    none, one is started that ends with this process.

    Raises: ConfigError if it cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        return "connected"
    with tempfile.NamedTemporaryFile(prefix="modulab-ray-") as output:
        try:
            return _connected(address or os.environ.get("RAY_ADDRESS"), runtime_env, Path(output.name))
        except (ConnectionError, RuntimeError, ValueError, OSError, ImportError, RayError) as error:
            wrong_token = b"InvalidAuthToken" in output.read()
            reason = "the token for it is missing or wrong" if wrong_token else _reason(error)
            raise ConfigError(
                f"hydra/launcher=population_ray: Ray cannot be reached: {reason}. Check hydra.launcher.address against "
                "`ray status` and, if the cluster asks for a token, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; with "
                "hydra.launcher.address=local one is started here."
            ) from error


def _connected(address: str | None, runtime_env: Any, output: Path) -> str:
    """Return to which cluster this process has been connected; what Ray prints meanwhile is written to a file."""
    options: dict[str, Any] = {
        "log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": runtime_env,
    }  # fmt: skip
    starting: dict[str, Any] = {
        **options,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    if address == "local":
        _initialise(output, address=address, **starting)
        return STARTED
    if address is not None:
        _check_answers(address)
        tell(f"connecting to Ray at {address}")
        _initialise(output, address=address, **options)
        return address
    if left := _left_behind():
        tell(f"Ray's last cluster on this machine, {left}, does not answer: one is started here")
        _initialise(output, address="local", **starting)
        return STARTED
    try:
        _initialise(output, **starting)
        return STARTED
    except ValueError:  # settings of a new cluster, where `ray start` has begun one
        _initialise(output, **options)
        return "the cluster of this machine"


def _initialise(output: Path, **options: Any) -> None:
    import ray

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with output_to(output):
                ray.init(**options)
            return
        except ConnectionAbortedError as error:
            if attempt == _ATTEMPTS or not any(words in str(error) for words in _NOT_STARTED):
                raise
            tell(f"Ray did not start a server for this client: attempt {attempt} of {_ATTEMPTS}")


def _left_behind() -> str | None:
    """Return the address that a cluster of this machine left in Ray's file as it crashed, or None if it answers.

    Ray itself would try it for many minutes.
    """
    temporary = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
    file = Path(temporary, "ray", "ray_current_cluster")
    try:
        address = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    try:
        _check_answers(address)
    except OSError:
        return address
    return None


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens at an address; Ray itself takes minutes to find out."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()


def _reason(error: BaseException) -> str:
    """Return why connecting failed: what Ray's server for clients sends is a traceback, whose last line says it."""
    return first_sentence(lines_of(error)[-1 if isinstance(error, ConnectionAbortedError) else 0])


def lines_of(error: BaseException) -> list[str]:
    """Return the lines of an error's text that are not empty, or the name of its type."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def first_sentence(line: str) -> str:
    """Return the first sentence of a line, without its full stop."""
    return re.split(r"\.(?:\s|$)", line)[0].removesuffix(":")
