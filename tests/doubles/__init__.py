"""Stand-ins for what is not there when tests run; each keeps to the Protocol of the real thing."""
