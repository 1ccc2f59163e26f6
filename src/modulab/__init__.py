"""modulab: when, why and to what end neural networks become modular."""

import os

# MKL otherwise picks kernels by memory alignment, and a member's rounding would depend on its place in the population.
os.environ.setdefault("MKL_CBWR", "AUTO")
