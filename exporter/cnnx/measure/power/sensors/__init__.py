"""Power sensors, one module per kind of hardware."""
