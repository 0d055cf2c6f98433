"""`export` and `calibrate`: from a network to a judged bundle."""
