"""The dream: memory rolled forward on its own, as a batched engine and as an environment."""
