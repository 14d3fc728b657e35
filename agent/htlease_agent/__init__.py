"""`htlease agent`, a daemon of the access point: speaks to the lease server for jobs that cannot.

It runs beside the schedd, under condor_master or systemd, and does three things: it gives starting
jobs their tokens, passes requests on to the server, and reports how jobs ended.
"""
