"""Sweeps: many trials as few compiled programs; `sweep` is the mode."""
