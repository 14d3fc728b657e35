"""The OpenAPI document, and what it says beyond the types of bodies."""
