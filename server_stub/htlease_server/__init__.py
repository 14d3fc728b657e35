"""The lease server: ASGI edge, one writer, a durable store."""
