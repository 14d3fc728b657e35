"""htlease: identity, lease rules and the client that carries them."""
