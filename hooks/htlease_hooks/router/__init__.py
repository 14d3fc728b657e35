"""The hooks of the Job Router, on an access point."""
