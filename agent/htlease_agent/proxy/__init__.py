"""The agent's way to the server for jobs that have none."""
