"""`bench`: latency, memory and energy on this machine."""
