"""Vision (V): the convolutional VAE that turns a frame into a latent vector z."""
