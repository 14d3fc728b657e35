"""The stores: what the server asks of one, and the two that there are."""
