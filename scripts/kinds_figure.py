"""Draw the figure of kinds of networks: python scripts/kinds_figure.py FOLDER."""

import sys
from pathlib import Path

import modulab
from modulab.report.noise_figure import noise_figure

folder = Path(sys.argv[1])
measures = ("modularity/functional", "robustness/poisson@0.3")
noise_figure(modulab.load_results(folder), folder / "kinds.png", measures)
print(f"Figure: {folder / 'kinds.png'}")
