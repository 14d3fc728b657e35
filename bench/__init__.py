"""How fast the server is on this machine; `python -m bench` runs everything."""
