"""Records of a bundle: the types of their results, and the checks that verify them."""
