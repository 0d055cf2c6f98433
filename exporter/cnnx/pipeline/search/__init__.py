"""Searches that try many networks on held-out images: the range method, repair, folds."""
