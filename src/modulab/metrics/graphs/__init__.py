"""Graphs of networks, their modularity under a given partition, and its nulls."""
