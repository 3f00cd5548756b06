"""Experience: episodes in the real environment, and the shards on disk that hold them."""
