"""Files, folders and arrays to shards."""
