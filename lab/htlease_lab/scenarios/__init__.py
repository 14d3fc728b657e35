"""`htlease scenario`: transfers that pause, fail, expire and are orphaned, on a personal pool."""
