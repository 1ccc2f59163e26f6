"""Training populations."""
