"""Many members: their results, on disk."""
