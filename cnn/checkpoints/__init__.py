"""What lies on disk: a run's directory and its checkpoints, whole or not there."""
