"""Analyses of trained networks: what is found by changing them, and by running them at points of choice."""
