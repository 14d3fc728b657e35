"""What wrapper and hooks share on an execution point."""
