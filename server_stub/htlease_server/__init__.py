"""The lease server: HTTP/1.1 of its own, one writer, a durable store."""
