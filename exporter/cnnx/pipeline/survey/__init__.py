"""`survey`: many networks on this machine, and the proof that a device works."""
