"""HTTP/1.1 as this server speaks it: connections, requests, answers, TLS."""
