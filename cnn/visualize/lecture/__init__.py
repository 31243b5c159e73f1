"""The lecture's slides, from our own operators; no run is needed."""
