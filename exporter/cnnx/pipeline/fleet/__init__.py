"""`fleet`: many networks, precisions and devices from one machine."""
