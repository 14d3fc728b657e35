"""The bodies of requests and answers, as types."""
