"""Calibration of INT8 ranges from activation statistics. Depends on NumPy only, not on runtimes or graphs."""
