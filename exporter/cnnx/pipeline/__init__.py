"""What the commands do: from a network's definition to a validated engine, in cached steps."""
