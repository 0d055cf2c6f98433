"""Image sets cut into shards that nodes run; the result is exactly that of one node."""
