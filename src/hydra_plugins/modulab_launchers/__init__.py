"""Hydra plugins of modulab. Hydra imports them at every start, so what is heavy is imported where it is used."""
