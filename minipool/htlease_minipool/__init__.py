"""A personal HTCondor pool for the demo and the tests."""
