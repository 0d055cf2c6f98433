"""Judging: which gates are set, on images, on records, and again from a record."""
