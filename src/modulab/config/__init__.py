"""Settings: from a command line to checked members."""
