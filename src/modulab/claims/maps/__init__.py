"""Where each claim holds: an effect as a function of settings, and the boundary where it stops mattering."""
