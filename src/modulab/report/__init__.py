"""Reports: figures of results with their data, and self-contained HTML pages."""
