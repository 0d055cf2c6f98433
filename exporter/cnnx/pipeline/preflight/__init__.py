"""Preflight: whether a bundle's engines fit this machine, before anything is loaded."""
