"""Many networks, precisions and devices from one machine."""
