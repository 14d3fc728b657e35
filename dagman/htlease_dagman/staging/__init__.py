"""Transfers as external tasks: the interface of back-ends, the record, and what moves it on."""
