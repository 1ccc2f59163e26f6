"""An archive of elites: the best candidate in each cell of a grid over two measures, and the table of it.

J.-B. Mouret and J. Clune, "Illuminating search spaces by mapping elites", arXiv 1504.04909, 2015. Each cell keeps
the candidate with the best fitness; of equally fit ones, the one with the smaller genes. This is a minimum over a total
order, so an archive depends on which candidates there were, and not on their order.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from modulab.errors import ConfigError
from modulab.results.files import write_whole

ARCHIVE = "archive.csv"
Cell = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """A measure, and its range cut into cells of equal width; what lies beyond is in the first cell or the last."""

    measure: str
    low: float
    high: float
    cells: int

    def place(self, value: float) -> int:
        """Return the cell of a value, from 0."""
        share = (value - self.low) / (self.high - self.low)
        return min(max(math.floor(share * self.cells), 0), self.cells - 1)

    def ends(self, cell: int) -> tuple[float, float]:
        """Return where a cell begins and ends."""
        width = (self.high - self.low) / self.cells
        return self.low + cell * width, self.low + (cell + 1) * width


@dataclass(frozen=True)
class Candidate:
    """A candidate that a search has tried."""

    number: int
    fitness: float
    """Lower is better."""
    measures: tuple[float, ...]
    genes: tuple[float | str, ...]
    """The order of equally fit candidates; of two equal ones, the one with the earlier number is kept."""

    @property
    def rank(self) -> tuple[float, tuple[tuple[bool, float | str], ...], int]:
        """Return the key by which the elite of a cell is the smallest."""
        return self.fitness, tuple((isinstance(gene, str), gene) for gene in self.genes), self.number


def elites(axes: Sequence[Axis], candidates: Iterable[Candidate]) -> dict[Cell, Candidate]:
    """Return the best candidate of each cell that has any, in the order of cells."""
    found: dict[Cell, Candidate] = {}
    for candidate in candidates:
        cell = tuple(axis.place(value) for axis, value in zip(axes, candidate.measures, strict=True))
        if cell not in found or candidate.rank < found[cell].rank:
            found[cell] = candidate
    return dict(sorted(found.items()))


def archive_table(
    axes: Sequence[Axis], rows: Mapping[Cell, Mapping[str, object]], columns: Sequence[str]
) -> pd.DataFrame:
    """Return one row per cell: its position, and the columns of its elite; those of empty cells are missing."""
    cells: list[Cell] = [()]
    for axis in axes:
        cells = [(*cell, place) for cell in cells for place in range(axis.cells)]
    table = pd.DataFrame([{name: rows.get(cell, {}).get(name) for name in columns} for cell in cells])
    for number, axis in enumerate(axes):
        ends = [axis.ends(cell[number]) for cell in cells]
        table.insert(2 * number, f"{axis.measure}:low", [low for low, _ in ends])
        table.insert(2 * number + 1, f"{axis.measure}:high", [high for _, high in ends])
    return table


def write_archive(folder: Path, table: pd.DataFrame) -> None:
    """Write the table of an archive to the folder of results."""
    write_whole(folder / ARCHIVE, table.to_csv(index=False).encode())


@dataclass(frozen=True)
class ReadArchive:
    """An archive as it was written: its table, the measures of its axes, and the objective."""

    table: pd.DataFrame
    measures: tuple[str, str]
    objective: str


def read_archive(folder: Path) -> ReadArchive | None:
    """Return the archive in a folder of results, or None if there is none.

    Raises: ConfigError for a file that is not an archive.
    """
    path = folder / ARCHIVE
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()))
        measures = [str(name).removesuffix(":low") for name in table if str(name).endswith(":low")]
        first, second = measures
        objective = str(table.columns[4])
        ends = [f"{name}:{end}" for name in measures for end in ("low", "high")]
        table[[*ends, objective]] = table[[*ends, objective]].astype(float)
        _check_cells(table.loc[:, ends])
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ConfigError(f"{path} is not an archive of elites: {error}") from error
    return ReadArchive(table, (first, second), objective)


def _check_cells(ends: pd.DataFrame) -> None:
    """Raise ValueError where the ends of cells, low and high of each measure, do not form a grid."""
    if not len(ends) or not np.isfinite(ends.to_numpy()).all():
        raise ValueError("cells do not all have finite ends")
    lows = ends.iloc[:, [0, 2]]
    if lows.duplicated().any() or len(ends) != np.prod([lows[name].nunique() for name in lows]):
        raise ValueError("its rows are not the cells of a grid")
    if (ends.iloc[:, [1, 3]].to_numpy() <= lows.to_numpy()).any():
        raise ValueError("cells end before they begin")
