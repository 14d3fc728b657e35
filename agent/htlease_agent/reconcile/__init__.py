"""What queue and history say of jobs, and the server has not been told."""
