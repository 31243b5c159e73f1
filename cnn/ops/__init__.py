"""The lecture's operators as pure functions of channels-last arrays."""
