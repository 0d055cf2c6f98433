"""Ways to damage or change a file, each knowing one format."""
