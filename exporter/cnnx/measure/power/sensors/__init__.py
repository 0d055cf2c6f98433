"""Sensors of power: one kind of hardware a file."""
