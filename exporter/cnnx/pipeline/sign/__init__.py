"""Signatures of bundles: `sign`, `verify`, and opening a bundle only if a key signed it."""
