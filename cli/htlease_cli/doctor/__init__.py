"""`htlease doctor`: looks at the whole set-up and says what to do about it."""
