"""Modules found in trained networks by connections and by activity, without knowledge of the task."""
