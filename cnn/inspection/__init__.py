"""A look at the data before training: counts, duplicates, leaks, conflicts, a page."""
