"""DAG files: read as DAGMan reads them, and the lines put into them."""
