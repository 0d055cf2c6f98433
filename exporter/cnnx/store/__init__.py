"""Atomic file writes, and the cache of finished steps built on them."""
