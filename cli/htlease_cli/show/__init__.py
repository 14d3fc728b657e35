"""The commands that only look: list, show, history, explain, find, graph."""
