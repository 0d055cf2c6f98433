"""What each table says, one module a subject."""
