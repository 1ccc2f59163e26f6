"""Libraries of compiled steps on disk: how they are named, written and checked before they are loaded.

A library ends in its own hash. A truncated or damaged library does not match its hash, and is compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from modulab.errors import ConfigError
from modulab.results.files import replacing
from modulab.training.cache import VARIABLES, cache_folder, unsafe_file
from modulab.training.processor import processor_fact

ADVICE = (
    "Name another folder, with free space and from which programs may be run, in the environment variable "
    f"{' or '.join(VARIABLES)}, or use trainer.engine=eager."
)
SEAL = b"modulab\1"
"""The bytes at the end of a library, before the SHA-256 of everything before them."""


class CannotCompile(ConfigError):
    """This machine cannot compile steps, or not keep or load them: for no step, whatever it computes."""


@functools.cache
def processor() -> str:
    """Return what this machine's processor can do: code is compiled for it alone."""
    return f"{torch.backends.cpu.get_cpu_capability()} {processor_fact('flags', 'Features')}"


def library_of(parts: Sequence[str]) -> Path:
    """Return where a library is kept that is the same wherever these parts and the processor are."""
    name = hashlib.sha256("\0".join((*parts, processor())).encode()).hexdigest()[:32]
    return cache_folder() / f"{name}.so"


@contextmanager
def writing() -> Generator[None]:
    """Raise CannotCompile for any error with files."""
    try:
        yield
    except OSError as error:
        raise CannotCompile(f"The compiled training step cannot be kept: {error}. {ADVICE}") from error


def check_runnable(folder: Path) -> None:
    """Raise CannotCompile where no programs may be run from a folder."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise CannotCompile(f"{folder} lies where no programs may be run (noexec). {ADVICE}")


def keep(library: Path, content: bytes) -> None:
    """Write a library, with its seal and hash, in one step."""
    content += SEAL
    with replacing(library) as beside:
        beside.write_bytes(content + digest(content))
        beside.chmod(0o700)


def is_whole(library: Path) -> bool:
    """Return whether a library is there, is what was compiled, and could have been written by no other user."""
    try:
        descriptor = os.open(library, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        if unsafe_file(descriptor) is not None:
            return False
        content = file.read()
    end = len(content) - hashlib.sha256().digest_size
    return (
        content.startswith(b"\x7fELF")
        and content[:end].endswith(SEAL)
        and digest(content[:end]) == content[end:]
    )


def digest(content: bytes) -> bytes:
    """Return the SHA-256 of a library's content."""
    return hashlib.sha256(content).digest()
