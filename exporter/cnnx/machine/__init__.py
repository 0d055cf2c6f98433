"""This machine: its hardware, clocks and packages, and isolated child processes."""
