"""Training: the step, the compiled chunks of steps, and what a run is made of."""
