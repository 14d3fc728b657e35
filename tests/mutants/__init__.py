"""Mutants of what decides: how many of them the quick tests notice."""
