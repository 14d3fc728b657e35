"""`htlease submit`: an ordinary submit file, with the wrapper in front of its jobs."""
