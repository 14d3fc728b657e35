"""What DAGMan calls for nodes: PRE, POST and HOLD."""
