"""The lease rules and what they speak of; no I/O, no clock."""
