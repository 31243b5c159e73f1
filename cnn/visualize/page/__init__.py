"""The report: one HTML file of results, options and pictures."""
