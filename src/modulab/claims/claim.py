"""What a claim is: its words, its experiments, its criteria and the figures that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from modulab.claims.comparisons import ERROR, MODULARITY, UNDER_NOISE
from modulab.claims.evidence import Condition, Evidence
from modulab.claims.rules import Criterion
from modulab.report.figure import ReportFigure
from modulab.report.planes import front_figure

ARM_WORDS = {
    "poisson": "Poisson noise",
    "gaussian": "Gaussian noise",
    "multiplicative": "multiplicative noise",
    "dropout": "dropout",
    "activity_weight": "squared weights times activity",
    "scale_free": "weights times activity",
    "l1": "L1 on weights",
    "l2": "L2 on weights",
    "activity_l1": "L1 on activity",
    "activity_l2": "L2 on activity",
}
"""What legends call noises and regularisers, by the names of their configs."""

Draw = Callable[[Mapping[str, Evidence]], Sequence[ReportFigure]]


@dataclass(frozen=True)
class FirstRule:
    """A rule that decided a claim in an earlier version, shown with the reason why it was replaced."""

    rule: str
    verdict: str
    effect: str
    """The effect of the claim's first quantity with the preset quick."""
    reason: str
    """Why the rule was replaced."""


@dataclass(frozen=True)
class Setting:
    """One of several settings in which a claim is decided, with the criteria that decide there."""

    at: Mapping[str, str]
    """The values of the axes, in words: {"modules": "4", "compared at": "equal width"}. Settings have equal axes."""
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True)
class Claim:
    """A claim, which is complete before its experiments are run."""

    name: str
    """Its name in the documentation and on the command line: C1."""
    title: str
    hypothesis: str
    measure: str
    """What is measured, in words."""
    comparison: str
    """What is compared with what, in words."""
    experiments: tuple[str, ...]
    """Names of the experiments under configs/experiment/claims/."""
    criteria: tuple[Criterion, ...]
    draw: Draw
    caveats: tuple[str, ...]
    prediction: str = ""
    """What theory predicts, written before the experiment was run."""
    first_rule: FirstRule | None = None
    later_rules: tuple[FirstRule, ...] = ()
    """The rules that followed the first one and were also replaced, in order."""
    tables: tuple[tuple[str, Condition, tuple[str, ...]], ...] = ()
    """For each table of the report: an experiment, which of its networks, and the measures to show of them."""
    settings: tuple[Setting, ...] = ()
    """The settings that decide, instead of `criteria`, if the answer may depend on an axis."""

    @property
    def deciding(self) -> list[Criterion]:
        """Return the criteria that have a region."""
        everything = [*self.criteria, *(each for setting in self.settings for each in setting.criteria)]
        return [criterion for criterion in everything if criterion.region is not None]

    def __post_init__(self) -> None:
        """Raise ValueError where both the claim and its settings would decide."""
        if self.settings and any(criterion.region is not None for criterion in self.criteria):
            raise ValueError(f"{self.name} has settings, so that criteria beside them must have no region.")


def connectivity_of(
    table: Evidence, arms: Mapping[str, Condition], *, name: str, title: str
) -> list[ReportFigure]:
    """Draw the first seed's network of each arm before and after training; nothing if no weights were kept."""
    # Imported here because it takes seconds, and misspelt commands should be rejected at once.
    from modulab.report.connectivity import trained_connectivity
    from modulab.report.connectivity_figure import connectivity_figure

    if table.folder is None:
        return []
    chosen = {arm: table.rows(condition).sort_values("config.seed") for arm, condition in arms.items()}
    run_ids = {arm: str(rows["run_id"].iloc[0]) for arm, rows in chosen.items() if len(rows)}
    trained = trained_connectivity(table.folder, list(run_ids.values()))
    shown = {arm: trained[run_id] for arm, run_id in run_ids.items() if run_id in trained}
    return [connectivity_figure(shown, name=name, title=title, run_ids=run_ids)] if shown else []


def front_figures(arms: pd.DataFrame, name: str, of_what: str) -> list[ReportFigure]:
    """Draw modularity, and error under noise, against clean error for each `arm` over its `strength`."""
    return [
        front_figure(
            arms,
            ERROR,
            measure,
            arm="arm",
            order="strength",
            name=f"{name}_{kind}",
            title=title,
        )
        for measure, kind, title in (
            (MODULARITY, "modularity", f"Structural modularity and test error{of_what}"),
            (UNDER_NOISE, "robustness", f"Error under noise and test error{of_what}"),
        )
    ]
