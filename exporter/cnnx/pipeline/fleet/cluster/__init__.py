"""Brings machines together: joins them to one Ray cluster, over SSH if asked, and lists what is there."""
