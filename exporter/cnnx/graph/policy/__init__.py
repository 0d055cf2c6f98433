"""Rules that choose the precision of each layer."""
