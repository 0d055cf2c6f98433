"""Tables and remarks, one module per subject."""
