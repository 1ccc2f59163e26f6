"""Draw the demo's figure: python scripts/demo_figure.py FOLDER."""

import sys
from pathlib import Path

import modulab
from modulab.report.noise_figure import noise_figure

folder = Path(sys.argv[1])
noise_figure(modulab.load_results(folder / "regression"), folder / "modularity_and_robustness.png")
print(f"Figure: {folder / 'modularity_and_robustness.png'}")
