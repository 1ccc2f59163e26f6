"""What a process shares with all code in it: every setting that a library call could leave changed."""

from __future__ import annotations

import ctypes
import gc
import locale
import logging
import os
import pickle
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from typing import Any


def state() -> dict[str, str]:
    """Return every shared setting of this process by name, as text."""
    return {
        name: repr(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)
        for part in (_python(), _logging(), _libraries(), _memory())
        for name, value in part
    }


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return the settings that differ, with both values.

    A setting that only `after` has came with a library that was imported, unless it is an environment variable.
    """
    return {
        name: (before.get(name, "absent"), after.get(name, "absent"))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name) and (name in before or name.startswith("os.environ"))
    }


def _python() -> list[tuple[str, Any]]:
    umask = os.umask(0)
    os.umask(umask)
    numbers = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    return [
        *((f"os.environ[{name}]", value) for name, value in os.environ.items()),
        ("current folder", os.getcwd()),
        ("umask", umask),
        ("cores", sorted(os.sched_getaffinity(0))),
        ("sys.argv", sys.argv),
        ("sys.path", sys.path),
        ("sys.meta_path", sys.meta_path),
        ("sys.path_hooks", sys.path_hooks),
        ("sys.flags", (sys.dont_write_bytecode, sys.pycache_prefix)),
        ("sys.excepthook", sys.excepthook),
        ("sys.unraisablehook", sys.unraisablehook),
        ("sys.displayhook", sys.displayhook),
        ("sys.stdout", id(sys.stdout)),
        ("sys.stderr", id(sys.stderr)),
        ("sys.stdin", id(sys.stdin)),
        ("recursion limit", sys.getrecursionlimit()),
        ("switch interval", sys.getswitchinterval()),
        ("trace and profile", (sys.gettrace(), sys.getprofile())),
        ("gc thresholds", gc.get_threshold()),
        ("gc enabled", gc.isenabled()),
        ("gc frozen", gc.get_freeze_count()),
        ("gc debug and callbacks", (gc.get_debug(), gc.callbacks)),
        ("threading.excepthook", threading.excepthook),
        ("threads", sorted(thread.name for thread in threading.enumerate())),
        ("thread stack size", threading.stack_size()),
        ("random", random.getstate()),
        *((f"signal {number}", signal.getsignal(number)) for number in numbers),
        ("blocked signals", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        *((f"timer {which}", signal.getitimer(which)[1]) for which in (0, 1, 2)),
        ("socket timeout", socket.getdefaulttimeout()),
        ("locale", locale.setlocale(locale.LC_ALL)),
        ("time zone", time.tzname),
        ("temporary files", tempfile.gettempdir()),
        *((f"limit {name}", resource.getrlimit(getattr(resource, name)))
          for name in dir(resource) if name.startswith("RLIMIT")),
        ("nice", os.nice(0)),
        ("warnings.filters", warnings.filters),
        ("warnings.showwarning", warnings.showwarning),
        ("warnings.formatwarning", warnings.formatwarning),
    ]  # fmt: skip


def _logging() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("logging.disable", logging.root.manager.disable),
        ("logging classes", (logging.getLoggerClass(), logging.getLogRecordFactory(), logging.raiseExceptions)),
    ]  # fmt: skip
    loggers = {"root": logging.root, **logging.root.manager.loggerDict}
    for name, logger in loggers.items():
        if isinstance(logger, logging.Logger):
            handlers = [(type(each).__name__, each.level, each.filters) for each in logger.handlers]
            facts = (logger.level, handlers, logger.filters, logger.propagate, logger.disabled)
            found.append((f"logger {name}", facts))
    return found


def _libraries() -> list[tuple[str, Any]]:
    """Return the settings of libraries that are imported already."""
    found: list[tuple[str, Any]] = []
    if "numpy" in sys.modules:
        import numpy as np

        found += [
            ("numpy random", pickle.dumps(np.random.get_state())),  # noqa: NPY002
            ("numpy errors", (np.geterr(), np.geterrcall(), np.getbufsize())),
            ("numpy printing", np.get_printoptions()),
        ]  # fmt: skip
    if "torch" in sys.modules:
        found += _torch()
    if "hydra" in sys.modules:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.utils import JobRuntime
        from hydra.version import VersionBase
        from omegaconf.basecontainer import BaseContainer

        found += [
            ("hydra", (id(GlobalHydra.instance()), id(GlobalHydra.instance().hydra))),
            ("hydra config", id(HydraConfig.instance().cfg)),
            ("hydra job", str(JobRuntime.instance().conf)),
            ("hydra version", VersionBase.instance().version_base),
            ("omegaconf resolvers", sorted(BaseContainer._resolvers.items())),
        ]
    if "matplotlib" in sys.modules:
        import matplotlib as mpl

        found += [(f"matplotlib {name}", value) for name, value in dict.items(mpl.rcParams)]
    if "pandas" in sys.modules:
        import pandas as pd

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas', of options that are deprecated
            found += [
                (f"pandas {name}", pd.get_option(name)) for name in pd._config.config._registered_options
            ]
    return found


def _torch() -> list[tuple[str, Any]]:
    import torch

    found: list[tuple[str, Any]] = [
        ("torch threads", torch.get_num_threads()),
        ("torch random", bytes(torch.get_rng_state().tolist())),
        ("torch dtype", torch.get_default_dtype()),
        ("torch device", torch.get_default_device()),
        ("torch gradients", (torch.is_grad_enabled(), torch.is_inference_mode_enabled())),
        ("torch anomaly", torch.is_anomaly_enabled()),
        ("torch autocast", (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))),
        ("torch deterministic", (torch.get_deterministic_debug_mode(),
                                 torch.utils.deterministic.fill_uninitialized_memory)),
        ("torch precision", torch.get_float32_matmul_precision()),
        ("torch warnings", torch.is_warn_always_enabled()),
        ("torch denormals", float(torch.tensor(1e-40) * 1.0)),
        ("torch cudnn", (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark,
                         torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)),
        ("torch mkldnn", torch.backends.mkldnn.enabled),
        ("torch sharing", torch.multiprocessing.get_sharing_strategy()),
        ("torch printing", vars(torch._tensor_str.PRINT_OPTS)),
        ("torch distributed", torch.distributed.is_available() and torch.distributed.is_initialized()),
        ("torch compile", torch.compile),
    ]  # fmt: skip
    for name in ("_dynamo", "_inductor", "_functorch"):
        config: Any = sys.modules.get(f"torch.{name}.config")
        if config is not None:
            found += [
                (f"torch.{name}.config.{key}", value) for key, value in config.get_config_copy().items()
            ]
    return found


def _memory() -> list[tuple[str, Any]]:
    """Return whether glibc maps a buffer that is larger than any of its own thresholds, and gives it back at once."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return []

    class Info(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                         "fordblks", "keepcost")
        ]  # fmt: skip

    library.mallinfo2.restype = Info
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    before = library.mallinfo2().hblks
    buffer = library.malloc(40 << 20)
    mapped = library.mallinfo2().hblks - before
    library.free(buffer)
    return [("malloc maps a large buffer", mapped)]
