"""The folders whose results a report shows: one, or several that it compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pandas as pd

from modulab.results.store import FOLDER, load_sample, sample_folders


@dataclass(frozen=True)
class Source:
    """A path with results. In a report of several it has a name, which is the value of `FOLDER` in its rows."""

    path: Path
    name: str = ""

    @property
    def folder(self) -> Path:
        """The folder that the path is or lies in."""
        return self.path if self.path.is_dir() else self.path.parent


def sources_of(paths: Path | Sequence[Path]) -> list[Source]:
    """Return the sources of a report. The names of several are their paths without the folders that all share."""
    paths = [paths] if isinstance(paths, Path) else paths
    if len(paths) == 1:
        return [Source(paths[0])]
    parts = [path.parts for path in paths]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))
    shared = min(len(list(alike)), *(len(each) - 1 for each in parts))
    return [Source(path, str(Path(*each[shared:]))) for path, each in zip(paths, parts, strict=True)]


def load_sources(sources: Sequence[Source], most: int) -> tuple[pd.DataFrame, int]:
    """Return the results of some sources as `load_sample` does, and the number of networks there.

    A network that stands in several of them has a row for each. Its run_ids there differ: the name of the source is
    added, so that no number of one row is taken for one of another.

    Raises: ConfigError if there are none, and for a path that is given twice.
    """
    if len(sources) == 1:
        return load_sample(sources[0].path, most, analyses=True)
    results, count = sample_folders(
        [source.path for source in sources], [source.name for source in sources], most
    )
    named = results["run_id"] + " (" + results[FOLDER] + ")"
    repeated = results["run_id"].duplicated(keep=False)
    return results.assign(run_id=results["run_id"].mask(repeated, named)), count


def rows_of(source: Source, results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are from a source."""
    return results.loc[results[FOLDER] == source.name] if source.name else results


def names_in(sources: Sequence[Source], networks: pd.DataFrame) -> Iterator[tuple[Source, dict[str, str]]]:
    """Yield each source with its own ones among some networks: their run_ids in the report by those in the source."""
    for source in sources:
        names = map(str, rows_of(source, networks)["run_id"])
        yield source, {name.partition(" ")[0]: name for name in names}
