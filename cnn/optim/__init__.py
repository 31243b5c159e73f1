"""What an update makes of gradients: one `update` for the step, and its parts."""
