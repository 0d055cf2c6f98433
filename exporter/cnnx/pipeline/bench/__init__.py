"""`bench`: latency, memory and energy of what runs here."""
