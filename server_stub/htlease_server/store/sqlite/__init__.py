"""The store in one SQLite file, which belongs to one server."""
