"""Draw two measures against noise in training: python scripts/noise_figure.py RESULTS FIGURE [MEASURE MEASURE]."""

import sys
from pathlib import Path

import modulab
from modulab.report.noise_figure import MEASURES, noise_figure

results, figure, *measures = sys.argv[1:]
left, right = measures or MEASURES
noise_figure(modulab.load_results(results), Path(figure), (left, right))
print(f"Figure: {figure}")
