"""`htlease logs`: what the server, HTCondor and the payloads wrote of a workflow, put together."""
