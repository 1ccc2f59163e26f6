"""Tables of results for tests, as small as the claim allows."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

MEASURES = ("error/test", "modularity/structural", "error_under/poisson@0.1", "error_under/poisson@0.3")


def sweep_results(seeds: int = 3, **settings: list[Any]) -> pd.DataFrame:
    """Return completed members, every combination of settings and seeds; write dots in keys as two underscores."""
    keys = [f"config.{key.replace('__', '.')}" for key in settings]
    rows = [dict(zip(keys, values, strict=True)) for values in product(*settings.values())]
    frame = pd.DataFrame([{**row, "config.seed": seed} for row in rows for seed in range(seeds)])
    if "config.architecture.name" not in frame:
        frame["config.architecture.name"] = "dense"
    numbers = np.random.default_rng(0)
    for measure in MEASURES:
        frame[measure] = numbers.uniform(0.1, 0.9, len(frame))
    names = [f"run{row:03}" for row in range(len(frame))]
    return pd.concat([pd.DataFrame({"run_id": names, "status": "completed", "error": None}), frame], axis=1)
