"""Draw two measures of a folder of results against noise in training."""

import sys

from given_overrides import answer

import modulab
from modulab.arguments import ArgumentParser, given_path
from modulab.errors import ConfigError
from modulab.report.noise_figure import MEASURES, noise_figure


def main() -> int:
    """Read results and draw them."""
    parser = ArgumentParser(prog="scripts/noise_figure.py", description=__doc__)
    parser.add_argument("results", type=given_path, metavar="RESULTS", help="folder that modulab train wrote")
    parser.add_argument("figure", type=given_path, metavar="FIGURE", help="PNG file to write")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"default: {' and '.join(MEASURES)}")
    options = parser.parse_args()
    measures = options.measures or MEASURES
    if len(measures) != 2:
        raise ConfigError(f"{', '.join(measures)}: the figure shows two measures. Give two, or none.")
    noise_figure(modulab.load_results(options.results), options.figure, (measures[0], measures[1]))
    print(f"Figure: {options.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
