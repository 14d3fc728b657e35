"""The hook of the shadow, on an access point."""
