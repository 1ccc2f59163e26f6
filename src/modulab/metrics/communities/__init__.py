"""Modules found in trained networks, by what connects units and by what they do; the task is not asked."""
