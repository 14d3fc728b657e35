"""`htlease hooks`: puts hooks and configuration on a machine of a pool, and takes them off.

It runs as root on the machine itself, and does nothing that copying the files would not do.
"""
