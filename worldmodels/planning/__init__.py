"""Planning in M's dreams, policies trained in them, and inference of the latent z."""
