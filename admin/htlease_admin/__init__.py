"""The `htlease` command: the operator's side, on the access point."""
