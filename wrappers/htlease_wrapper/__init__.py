"""The job wrapper that goes to the execution point inside htlease-ep.pyz."""
