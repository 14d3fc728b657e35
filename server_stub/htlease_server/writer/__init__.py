"""The process that writes a SQLite store for a server, and the line between the two.

In a thread of the server it would have to win Python's global lock back after each statement from
the event loop, which seldom lets go of it: the two took turns where a machine has cores for both.
"""
