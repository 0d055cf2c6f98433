"""Ranges of activations from what a network shows on pictures. Numpy only: no runtime, no graph format."""
