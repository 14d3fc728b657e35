"""What a person does to workflows, leases, tokens, stores and servers."""
