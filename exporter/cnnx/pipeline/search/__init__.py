"""Searches that compare many quantized networks on held-out images: range method, repair, folds."""
