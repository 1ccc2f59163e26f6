"""Keys that runs in W&B have besides settings, measures and charts."""

STEP = "training/step"
"""The axis of every curve."""

TABLE = "results"
"""The table of a sweep, in the sweep's own run."""
