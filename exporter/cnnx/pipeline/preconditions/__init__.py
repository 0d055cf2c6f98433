"""What is refused before any work or download."""
