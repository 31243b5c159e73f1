"""The mode evaluate: one run or several, calibrated, averaged, on any images."""
