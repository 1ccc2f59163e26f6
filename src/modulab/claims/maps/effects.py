"""The effect that a claim states for one setting: a contrast of two members of one seed, or the value of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from modulab.claims.evidence import SMALLEST_ERROR

_SMALLEST_SHARE = 0.01
"""The share of the least effect that matters down to which logarithms are taken; smaller values count as equal."""


@dataclass(frozen=True)
class Effect:
    """What is measured in each setting, and from where on it matters; a claim says that it is large."""

    words: str
    measure: str
    least: float
    """The least effect that matters; of a factor, the factor."""
    arm: str | None = None
    """The key whose value distinguishes a setting's two members; None if a setting has a single one."""
    base: Any = None
    """The value of the key in the member with which the other one is compared."""
    scale: Literal["difference", "factor", "size"] = "difference"
    """On which effects are fitted: as they are, as logarithms of a ratio of two members' values, or as the logarithm of
    one member's, which suits what varies over decades, with a spread in proportion to its size."""
    falls: bool = False
    """Whether the claim says that the measure is lower than in the base, as of an error."""

    price: str | None = None
    """A measure that the effect may cost, as an error: how much of the effect is had at which price is drawn, too."""

    @property
    def threshold(self) -> float:
        """Return the least effect that matters, on the scale that effects are computed on."""
        return self.least if self.scale == "difference" else math.log(self.least)

    def shown(self, value: float) -> float:
        """Return an effect in the units that a reader is shown."""
        return value if self.scale == "difference" else math.exp(min(value, 700))

    def prices(self, results: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        """Return one row per setting and seed: values of these keys, and the price in the member with the effect."""
        assert self.price is not None
        own = results if self.arm is None else results.loc[results[f"config.{self.arm}"] != self.base, :]
        found = Effect(self.words, self.price, self.least).of_settings(own, keys)
        return found.rename(columns={"effect": "price"})

    def of_settings(self, results: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        """Return one row per setting and seed: the setting's values of these keys, and the effect.

        Members of one seed belong to one setting. Those that lack a value, as of a network that diverged, leave their
        setting out.
        """
        columns = {f"config.{key}": key for key in keys}
        wanted = results["status"] == "completed"
        if self.measure not in results:
            return pd.DataFrame(columns=[*keys, "effect"])
        table = results.loc[wanted, ["config.seed", *columns, self.measure]].rename(columns=columns)
        value = table[self.measure].to_numpy(dtype=np.float64, na_value=np.nan)
        if self.scale != "difference":
            smallest = SMALLEST_ERROR if self.scale == "factor" else _SMALLEST_SHARE * self.least
            value = np.log(np.maximum(value, smallest))
        table["value"] = value
        if self.arm is None:
            found = table.assign(effect=table["value"])
        else:
            is_base = results.loc[wanted, f"config.{self.arm}"] == self.base
            base = table.loc[is_base].set_index("config.seed")["value"]
            found = table.loc[~is_base]
            gain = found["value"].to_numpy() - base.reindex(found["config.seed"]).to_numpy()
            found = found.assign(effect=-gain if self.falls else gain)
        return found.loc[np.isfinite(found["effect"]), [*keys, "effect"]].reset_index(drop=True)
