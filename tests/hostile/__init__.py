"""Clients that do their worst with a server, and what has to hold meanwhile, seen from outside."""
