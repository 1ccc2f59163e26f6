"""Which units predict a function's value, and whether modules hold more of them than chance.

A unit's predictivity for a binary function is the average precision of its activity as a score for it, or for its
opposite, whichever is larger (Z. Zhang et al., "Emergent modularity in pre-trained transformers", 2023). Functions of
real value are taken as "above the median". The units that are most predictive of a function are drawn without
replacement, so the number of them in a module of n of N units is hypergeometric under chance; p-values over all
modules and functions are corrected by Holm's method (S. Holm, "A simple sequentially rejective multiple test
procedure", 1979).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from modulab.metrics.probe import Probe


def average_precision(
    scores: Float[Tensor, "member unit sample"], labels: Bool[Tensor, "member function sample"]
) -> Float64[Tensor, "member unit function"]:
    """Return the average precision of each score for each binary function.

    It is the sum over distinct scores, from the highest, of the precision down to there times the share of positive
    samples that have this score. NaN for a function without positive samples.
    """
    ranked, order = torch.sort(scores, dim=2, descending=True, stable=True)
    samples = scores.shape[2]
    last_of_tie = torch.ones_like(ranked, dtype=torch.bool)
    last_of_tie[:, :, :-1] = ranked[:, :, 1:] != ranked[:, :, :-1]
    places = torch.arange(samples, device=scores.device)
    ends = torch.where(last_of_tie, places, samples).flip(2).cummin(dim=2).values.flip(2)
    found: list[Tensor] = []
    for function in range(labels.shape[1]):
        positive = labels[:, function, None].expand_as(order).gather(2, order).double()
        precision = positive.cumsum(dim=2) / (places + 1)
        found.append((positive * precision.gather(2, ends)).sum(dim=2) / positive.sum(dim=2))
    return torch.stack(found, dim=2)


def predictivity(
    activity: Float[Tensor, "member unit sample"], labels: Bool[Tensor, "member function sample"]
) -> Float64[Tensor, "member unit function"]:
    """Return the average precision of each unit for each function or its opposite, whichever is larger."""
    return torch.maximum(average_precision(activity, labels), average_precision(activity, ~labels))


def task_functions(probe: Probe) -> Bool[Tensor, "member function sample"]:
    """Return binary functions of the task's targets at the evaluation points.

    Of real values those above the member's median; of classes one against the others, a single one of two.
    """
    task, targets = probe.task, probe.samples.targets.transpose(1, 2)
    if not task.loss_function.takes_logits:
        return targets > targets.median(dim=2, keepdim=True).values
    classes = range(1, 2) if task.outputs_per_module == 2 else range(task.outputs_per_module)
    return torch.cat([targets == number for number in classes], dim=1)


def enrichment_p_values(
    counts: Int64[np.ndarray, "module function"], sizes: Int64[np.ndarray, " module"], drawn: int
) -> Float64[np.ndarray, "module function"]:
    """Return the probability under chance of `counts` or more of the `drawn` units in each module."""
    from scipy import stats  # slow to import, and rarely needed

    return np.asarray(stats.hypergeom.sf(counts - 1, sizes.sum(), sizes[:, None], drawn), dtype=np.float64)


def holm(p_values: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Return p-values corrected for their number by Holm's method."""
    flat = p_values.ravel()
    order = np.argsort(flat, kind="stable")
    corrected = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    found = np.empty_like(flat)
    found[order] = np.minimum(corrected, 1.0)
    return found.reshape(p_values.shape)


def enrichment(
    labels: Int64[np.ndarray, " unit"],
    scores: Float64[np.ndarray, "unit function"],
    top_fraction: float,
    level: float,
) -> tuple[float, float]:
    """Return the share of modules that are enriched for a function, and how many times over, on average.

    A module is enriched for a function if it holds more of its most predictive units than chance, at a corrected
    `level`; how many times is their number over the expected one. NaN for the latter if no module is.
    """
    kept = labels >= 0
    labels, scores = labels[kept], scores[kept]
    if not len(labels):
        return float("nan"), float("nan")
    drawn = max(1, round(top_fraction * len(labels)))
    top = np.argsort(-scores, axis=0, kind="stable")[:drawn]
    modules = np.unique(labels)
    counts = np.stack([(labels[top] == module).sum(axis=0) for module in modules])
    sizes = np.array([(labels == module).sum() for module in modules])
    enriched = holm(enrichment_p_values(counts, sizes, drawn)) <= level
    times = counts / (drawn * sizes[:, None] / len(labels))
    return float(enriched.any(axis=1).mean()), float(times[enriched].mean()) if enriched.any() else float(
        "nan"
    )
