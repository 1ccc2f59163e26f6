"""Sweeps: plan, train and measure many members, and store their results."""
