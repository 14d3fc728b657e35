"""The main job, played out: a job is evicted, loses a shadow, and reclaims its own phase."""
