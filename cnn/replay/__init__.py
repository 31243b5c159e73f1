"""Replay: a step of a run taken again, on request or when training stops at it."""
