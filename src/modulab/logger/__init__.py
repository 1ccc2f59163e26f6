"""Loggers: what a sweep's members did, exported to other programs as if each had been trained alone.

Results on disk come first; a logger only repeats them. A ledger records what was exported, so a
sweep that is resumed, or logged afterwards, exports nothing twice.
"""
