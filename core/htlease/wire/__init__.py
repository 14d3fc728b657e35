"""The protocol, and the caller's end of it."""
