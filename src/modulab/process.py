"""State that all code in a process shares, which a call of `modulab.train` restores afterwards.

Training sets the number of torch's threads, how the C library keeps freed memory, and the level of Lightning's logger.
A command does so for as long as its process lives; within a user's own program they are put back.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

_turn = threading.RLock()
_LOGGERS = ("lightning.pytorch", "torch.__trace")
"""Training silences the first; from the second, torch takes its own handler when it first traces a step."""
_CACHE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Set by torch when it looks for the folder; it looks again where the variable is not set."""


@contextmanager
def settings_kept() -> Generator[None]:
    """Restore the settings that training changes, also after an error.

    Calls from several threads take turns, as these settings are those of the whole process. What stays are imported
    modules, what these registered with others of their own, and the folder that setuptools, which torch's compiler
    imports, adds to `sys.path` to find its own modules in.
    """
    with _turn:
        import_training()
        import torch

        from modulab.training.engine import hand_back_freed_memory

        threads, folder = torch.get_num_threads(), os.environ.get(_CACHE_FOLDER)
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [(logger.level, list(logger.handlers)) for logger in loggers]
        try:
            # Libraries that are imported only when they are used, as the compiler is, add their own filters.
            with warnings.catch_warnings():
                yield
        finally:
            torch.set_num_threads(threads)
            for logger, (level, handlers) in zip(loggers, levels, strict=True):
                logger.setLevel(level)
                logger.handlers[:] = handlers
            hand_back_freed_memory()
            if folder is None:
                os.environ.pop(_CACHE_FOLDER, None)


def import_training() -> None:
    """Import what training needs, and undo what the libraries change beside their own modules.

    Importing Lightning and others adds environment variables and filters of warnings, has warnings printed in
    another format, and draws from `random`.
    """
    if "modulab.sweep.run" in sys.modules:
        return
    variables, state = dict(os.environ), random.getstate()
    print_format = warnings.formatwarning
    with warnings.catch_warnings():
        for name in ("modulab.config.composing", "modulab.sweep.run"):
            importlib.import_module(name)
    warnings.formatwarning = print_format
    random.setstate(state)
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
