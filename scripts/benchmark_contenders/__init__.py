"""Contenders of scripts/benchmark: the same training, written as a careful user of each library would write it.

Each contender is a module with one function, `prepare(workload)`, which returns a function that trains fresh
networks once and returns a `Timing`. A contender imports its own library only, so that each can run in an
environment of its own. See `workload` for what all of them must compute.
"""
