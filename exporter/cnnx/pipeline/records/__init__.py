"""Records of a bundle: what their results hold, and which of them count."""
