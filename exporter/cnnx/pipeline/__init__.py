"""The flow from a definition to a judged engine, as ordered steps."""
