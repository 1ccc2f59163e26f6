"""All claims, in the order in which they are reported."""

from __future__ import annotations

from collections.abc import Sequence

from modulab.claims import (
    classification,
    contest,
    depth,
    forgetting,
    linear,
    mediation,
    noise,
    premodular,
    regulariser,
    robustness,
    samples,
    solutions,
)
from modulab.claims.claim import Claim
from modulab.errors import ConfigError
from modulab.schema import suggest

CLAIMS = (
    noise.CLAIM,
    regulariser.CLAIM,
    linear.CLAIM,
    *contest.CLAIMS,
    samples.CLAIM,
    robustness.CLAIM,
    premodular.CLAIM,
    forgetting.CLAIM,
    *classification.CLAIMS,
    depth.CLAIM,
    mediation.CLAIM,
    solutions.CLAIM,
)

LONGEST_FIRST = (
    "codes",
    "robustness",
    "samples",
    "forgetting",
    "contest",
    "depth",
    "digits",
    "mediation",
    "solutions",
    "classification",
    "powers",
    "premodular",
    "noise",
    "linear",
    "regulariser",
    "duration",
    "depth_long",
)
"""Every experiment, in the order that keeps processes busy to the end."""


def choose_claims(names: Sequence[str] | None) -> list[Claim]:
    """Return the claims asked for, in order; all for None. C6 stands for C6a and C6b.

    Raises: ConfigError for a name that no claim has.
    """
    known = [claim.name for claim in CLAIMS]
    for name in names or []:
        if not any(_stands_for(name, each) for each in known):
            raise ConfigError(f"--only {name}: there is no such claim. {suggest(name, known)}")
    return [
        claim for claim in CLAIMS if names is None or any(_stands_for(name, claim.name) for name in names)
    ]


def _stands_for(name: str, claim: str) -> bool:
    return claim == name or claim[:-1] == name
