"""What DAGMan calls: PRE, POST and HOLD scripts, and the transfers that a DAG waits for."""
