"""The writers: what waits, what is decided together, when it is on the disk."""
