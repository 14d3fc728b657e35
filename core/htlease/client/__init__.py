"""The client of access points and services."""
