"""Files that people write, and diagrams for people."""
