"""Reports: what the records of bundles say, as the data that every format is written from."""
