"""Memory (M): what predicts the next latent, the reward and the end of the episode."""
