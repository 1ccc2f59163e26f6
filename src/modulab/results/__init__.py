"""A folder of results: tables, manifests, its lock, and files written atomically."""
