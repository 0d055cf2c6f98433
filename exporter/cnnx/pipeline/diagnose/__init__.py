"""`diagnose`: which INT8 layers do the damage."""
