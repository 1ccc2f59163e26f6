"""Graphs of networks, how modular they are under a given partition, and what that is compared with."""
