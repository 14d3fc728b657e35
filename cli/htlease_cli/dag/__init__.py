"""`htlease dag`: DAGMan workflows on the access point."""
