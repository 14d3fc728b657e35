"""What is done to a store as a whole: copies, checks, moves, restoring."""
