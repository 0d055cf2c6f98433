"""Checks that run before any work or download."""
