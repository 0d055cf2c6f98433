"""Explains the speed of an engine: what limits each layer, where the time goes, and what would help."""
