"""Memory (M): the MDN-RNN that predicts the next latent, the reward and the end of the episode."""
