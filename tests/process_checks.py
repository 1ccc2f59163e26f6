"""Calls modulab.train once, in a process of its own, and prints what the call left changed in it as JSON.

    python -m tests.process_checks CASE ENGINE FOLDER CACHE

Cases: `plain`; `first`, before torch and Lightning are imported; `misspelt`, a call that fails; `interrupted`, by
Ctrl-C while it trains; `thread`, in a thread that is not the main one; `own`, in a process with its own settings.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

import modulab
from tests.process_state import differences, state

train = modulab.train  # which imports pandas, as any use of modulab's interface does
QUICK = [
    "training.steps=60", "training.curve_every=20", "training.batch_size=8", "architecture.width=4",
    "data.num_samples=null", "probes.num_samples=32", "probes.repeats=1", "trainer.progress=off", "logger=csv",
]  # fmt: skip


LIBRARIES = [
    "lightning.pytorch", "matplotlib.pyplot", "modulab.sweep.run", "modulab.config.composing",
    "torch._dynamo.config", "torch._inductor.config", "torch._functorch.config", "setuptools",
]  # fmt: skip
"""What a call imports. setuptools, which torch's compiler imports, adds the folder of its own modules to sys.path."""


def import_libraries(names: list[str]) -> None:
    """Import what a call imports, so that its own changes are told from those of an import."""
    for name in names:
        importlib.import_module(name)


def make_settings() -> None:
    """Give every setting that a call is known to touch another value than its default."""
    import gc
    import logging
    import os
    import random
    import warnings

    import numpy as np
    import torch
    from hydra import initialize
    from omegaconf import OmegaConf

    os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "0"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.abspath("inductor")
    sys.argv = ["notebook", "--own"]
    sys.path.append("/nowhere")
    sys.setrecursionlimit(1500)
    gc.set_threshold(500, 5, 5)
    gc.disable()
    warnings.filterwarnings("ignore", message="of my own")
    logging.getLogger("lightning.pytorch").setLevel(logging.DEBUG)
    logging.getLogger("lightning.pytorch").addHandler(logging.NullHandler())
    logging.getLogger().setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    torch.set_num_threads(2)
    torch._dynamo.config.recompile_limit = 11
    torch._dynamo.config.automatic_dynamic_shapes = None
    OmegaConf.register_new_resolver("now", lambda form: form)
    initialize(version_base=None, config_path=None).__enter__()


def main(case: str, engine: str, folder: str, cache: str) -> dict[str, Any]:
    """Call, and return what that changed and whether it raised what it should."""
    os.environ["MODULAB_CACHE_DIR"] = cache
    overrides = [*QUICK, f"trainer.engine={engine}"]
    import_libraries(["setuptools"] if case == "first" else LIBRARIES)
    if case == "own":
        make_settings()
    if engine == "compiled":
        overrides += ["architecture.depth=0", "training.optimiser=sgd"]  # whose step is compiled soonest
    if case == "misspelt":
        overrides.append("architecture.widht=3")
    if case == "interrupted":
        overrides.append("task._target_=tests.interrupted_task.InterruptedTask")
    expected: Any = {"misspelt": modulab.ConfigError, "interrupted": KeyboardInterrupt}.get(case)
    found: dict[str, Any] = {"raised": False}

    def call() -> None:
        before = state()
        try:
            train(overrides, folder=folder)
        except BaseException as error:
            if expected is None or not isinstance(error, expected):
                raise
            found["raised"] = True
        found["changed"] = differences(before, state())

    if case == "thread":
        thread = threading.Thread(target=call, name="other")
        thread.start()
        thread.join()
    else:
        call()
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
