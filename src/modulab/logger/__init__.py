"""Loggers: what a sweep's members did, exported to other programs as if each had been trained alone.

Results on disk come first; a logger only repeats them. What has been repeated stands in a ledger, so a
sweep that continues, or is logged afterwards, repeats nothing twice.
"""
