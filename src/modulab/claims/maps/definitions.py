"""The maps: for each claim, the experiment that draws its settings, the effect that it states, and its prediction.

Axes are in the experiments' configs alone: configs/experiment/claims/maps/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modulab.claims import thresholds
from modulab.claims.maps import predictions
from modulab.claims.maps.effects import Effect
from modulab.claims.maps.predictions import Prediction
from modulab.claims.presets import HARDLY_TRAINED, Preset
from modulab.errors import ConfigError
from modulab.schema import suggest


@dataclass(frozen=True)
class ClaimMap:
    """A claim, and what is needed to draw where it holds."""

    claim: str
    title: str
    experiment: str
    """Its name under configs/experiment/claims/maps/."""
    effect: Effect
    prediction: Prediction
    caveat: str
    task: str = "regression"
    """The task whose constant answer an error is compared with."""
    part: str = ""
    """What distinguishes it from the claim's first map in the names of files."""

    @property
    def name(self) -> str:
        """Return the name of its files, which no other map has."""
        return f"map_{self.claim}{self.part and f'_{self.part}'}"


_ROBUSTNESS = Effect(
    "error under Poisson noise 0.3, dense / premodular",
    "error_under/poisson@0.3",
    thresholds.ROBUSTNESS,
    arm="architecture.name",
    base="dense",
    scale="factor",
    falls=True,
)

MAPS = (
    ClaimMap(
        "C1",
        "Noise makes nonlinear networks modular",
        "noise",
        Effect(
            "structural modularity minus that of the same network trained without noise",
            "modularity/structural",
            thresholds.MODULARITY,
            arm="noise.scale",
            base=0.0,
        ),
        predictions.NOISE,
        "Part of a gain in structural modularity is units that are aligned with what they read, in any direction.",
    ),
    ClaimMap(
        "C3",
        "Noise makes networks modular where their targets are nonlinear",
        "nonlinearity",
        Effect(
            "structural modularity minus that of rotated module axes",
            "modularity/structural_excess",
            thresholds.MODULARITY,
        ),
        predictions.NONLINEARITY,
        "Linear networks cannot learn what is nonlinear in the targets.",
    ),
    ClaimMap(
        "C5",
        "The samples needed grow with the number of modules",
        "samples",
        Effect(
            "structural modularity under the regulariser of weights times activity",
            "modularity/structural",
            0.5,
        ),
        predictions.SAMPLES,
        "The boundary is N50, the training points at which half of full modularity is reached; its slope on two "
        "logarithmic axes is the exponent of its growth.",
    ),
    ClaimMap(
        "C6a",
        "Premodular networks are more robust",
        "robustness",
        _ROBUSTNESS,
        predictions.ROBUSTNESS,
        "At equal width a premodular network has fewer weights than a dense one.",
    ),
    ClaimMap(
        "C6a",
        "Premodular networks are more robust, by degree and by what is equal",
        "robustness_degree",
        _ROBUSTNESS,
        predictions.ROBUSTNESS,
        "At equal parameters a premodular network has more units than a dense one.",
        part="degree",
    ),
    ClaimMap(
        "C6b",
        "Networks that became modular generalise further",
        "generalisation",
        Effect(
            "error on combinations that training withheld, dense networks trained without noise / under noise",
            "error_beyond/combination",
            thresholds.GENERALISATION,
            arm="noise.scale",
            base=0.0,
            scale="factor",
            falls=True,
        ),
        predictions.GENERALISATION,
        "Noise costs clean error, which is part of the error on withheld combinations.",
    ),
    ClaimMap(
        "C7",
        "Modular circuits forget less",
        "forgetting",
        Effect(
            "rise of the other modules' error in dense networks, while module 1 learns a new function",
            "forgetting/others_rise",
            thresholds.FORGETTING * thresholds.CONSTANT_ERROR["regression"],
            scale="size",
        ),
        predictions.FORGETTING,
        "In premodular networks the rise is 0 by construction, so the difference is the rise in dense networks.",
    ),
    ClaimMap(
        "C8b",
        "Noise makes networks that read digits modular, at a price",
        "digits",
        Effect(
            "excess of structural modularity minus that of the same network trained without noise",
            "modularity/structural_excess",
            thresholds.MODULARITY,
            arm="noise.scale",
            base=0.0,
            price="error/test",
        ),
        predictions.DIGITS,
        "Networks whose units have all died have no modularity, and are left out.",
        task="digits",
    ),
)

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "a few settings, hardly trained: tests that everything runs, decides nothing",
        ("population.sobol.settings=16", *HARDLY_TRAINED),
        resized={
            "digits": (
                "population.sobol.settings=16",
                *(each for each in HARDLY_TRAINED if not each.startswith("training.steps")),
                "population.sobol.axes={noise.scale: {low: 0.5, high: 4.0, scale: log}, regulariser.strength: "
                "{low: 1e-5, high: 1e-3, scale: log}, training.steps: {values: [20, 40]}}",
            )
        },
        decides=False,
    ),
    "quick": Preset("some hundreds of settings per claim: a first map, in minutes on two cores"),
    "full": Preset(
        "2,048 settings per claim: for a cluster, a GPU or a night",
        ("population.sobol.settings=2048", "training.steps=4000"),
        # Its steps are an axis.
        resized={"digits": ("population.sobol.settings=1024",)},
    ),
}


def choose_maps(names: Sequence[str] | None) -> list[ClaimMap]:
    """Return the maps of the claims asked for, in order; all for None. Raises: ConfigError for one without a map."""
    known = [each.claim for each in MAPS]
    for name in names or []:
        if name not in known and f"{name}a" not in known:
            raise ConfigError(f"--only {name}: there is no map of such a claim. {suggest(name, known)}")
    return [each for each in MAPS if names is None or {each.claim, each.claim.rstrip("ab")} & set(names)]
