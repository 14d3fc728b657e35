"""The calls of the API: from a request to a command or a look-up, and to an answer."""
