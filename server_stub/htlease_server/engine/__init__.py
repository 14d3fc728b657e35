"""Commands decided in order, and made durable before they are answered."""
