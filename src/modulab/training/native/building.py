"""Libraries of generated C++ on disk: compiled by the system's compiler, once for all processes that want the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock

from modulab.results.files import process_mark, remove_abandoned, write_whole
from modulab.training import torch_private
from modulab.training.cache import full_folder
from modulab.training.libraries import (
    ADVICE,
    CannotCompile,
    check_runnable,
    is_whole,
    keep,
    library_of,
    writing,
)
from modulab.training.native.statements import Unsupported
from modulab.training.processor import processor_fact

COMPILERS = ("g++", "clang++", "c++")
_REASON = ".unsupported"
"""What the file ends in, beside a library that cannot be made, that holds the reason."""
VECTORS = ("-mprefer-vector-width=512",) if "avx512f" in processor_fact("flags").split() else ()
"""GCC uses half of such vectors by default. With whole ones, steps with Poisson noise take a fifth less time."""
_FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fopenmp-simd",
    # Neither changes a number: loops with square roots and conditions are vectorised only if nothing reads errno or
    # for floating-point exceptions.
    "-fno-math-errno", "-fno-trapping-math",
    "-fwrapv", "-fno-strict-aliasing",
    *VECTORS,
)  # fmt: skip


def named(parts: Sequence[str]) -> Path:
    """Return where the library is kept that is made of these parts: its name stands for all that it depends on."""
    files = (Path(file).read_text("utf-8") for file in (torch_private.__file__, *_generator_files()))
    return library_of((*parts, *files, torch.__version__, repr(_FLAGS)))


def is_settled(library: Path) -> bool:
    """Return whether a library is on disk, or why there is none."""
    return is_whole(library) or library.with_suffix(_REASON).exists()


def build(library: Path, source: Callable[[], str]) -> None:
    """Compile a source, unless its library is on disk.

    Raises: Unsupported where no code can be generated, with the reason, which is kept; CannotCompile where the compiler
    or its folder cannot be used.
    """
    # Of processes that want the same library at once, one compiles it.
    with writing(), FileLock(library.with_suffix(".lock")):
        if not is_whole(library):
            _check_not_refused(library)
            try:
                text = source()
            except Unsupported as error:
                write_whole(library.with_suffix(_REASON), str(error).encode())
                raise
            keep(library, _compiled(text, library.parent))


def _check_not_refused(library: Path) -> None:
    """Raise Unsupported where an earlier process found that there is no code for a step: tracing it takes a second."""
    try:
        reason = library.with_suffix(_REASON).read_text("utf-8")
    except (OSError, ValueError):
        return
    raise Unsupported(reason)


def _generator_files() -> list[Path]:
    """Return the files of this package, which decide what code is generated."""
    folder = Path(__file__).parent
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".hpp"))


def _compiled(source: str, folder: Path) -> bytes:
    """Return the library that the system's compiler makes of a source."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotCompile(
            "Nothing can be compiled, because there is no C++ compiler. Install g++ or use trainer.engine=eager."
        )
    check_runnable(folder)
    remove_abandoned(folder)
    with tempfile.TemporaryDirectory(prefix=".compiling-", suffix=f".{process_mark()}", dir=folder) as work:
        made = Path(work) / "code.so"
        (Path(work) / "code.cpp").write_text(source, "utf-8")
        command = [compiler, *_FLAGS, "-o", str(made), str(Path(work) / "code.cpp")]
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": work}
        )
        if finished.returncode == 0:
            return made.read_bytes()
    said = next(iter(finished.stderr.strip().splitlines()), f"it ends with {finished.returncode}")
    if full_folder(OSError(finished.stderr), folder):
        raise CannotCompile(f"{folder} is full, so nothing can be compiled. {ADVICE}")
    raise CannotCompile(f"The C++ compiler {compiler} fails in {folder}: {said}. {ADVICE}")
