"""Files that appear whole or not at all, and the cache of finished steps that is built on them."""
