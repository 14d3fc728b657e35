"""What breaks things on purpose: a personal pool, scenarios, the demo."""
