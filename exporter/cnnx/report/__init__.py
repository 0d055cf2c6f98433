"""Records as reports: a table to compute on (`frame`), and files for people and for CI (`files`)."""
