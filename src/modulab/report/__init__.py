"""Reports: figures of results with the data they show, and self-contained HTML pages of them."""
