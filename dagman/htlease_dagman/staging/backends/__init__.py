"""Transfer services: what each of them is told and asked."""
