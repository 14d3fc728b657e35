"""`htlease stage`: makes the DAG of a staging workflow, and grafts transfers onto it."""
