"""`fleet`: many devices from one machine, joined by Ray."""
