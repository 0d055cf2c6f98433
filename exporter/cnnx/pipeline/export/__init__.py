"""`export` and `calibrate`: from a network to a validated bundle."""
