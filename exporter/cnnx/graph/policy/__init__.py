"""Which layers are computed in which precision, and by which rule."""
