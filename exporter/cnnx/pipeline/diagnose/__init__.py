"""`diagnose`: finds the INT8 layers that harm a network most."""
