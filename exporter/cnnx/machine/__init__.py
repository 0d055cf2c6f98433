"""What this computer is: its hardware, clocks and packages, and how programs are started on it."""
