"""The hooks of the starter, on an execution point."""
