"""Measurements that anybody can repeat: `make bench`, or `make bench-NAME` for one of the modules here."""
