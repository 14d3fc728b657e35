"""Load with faults on a real server, and a check whether the rules explain what it answered."""
