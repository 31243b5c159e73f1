"""Convolutional-network experiments in JAX: pure functions below, modes above."""
