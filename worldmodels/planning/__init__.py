"""Acting by planning: optimal control through M, what amortises it, and the latent z inferred."""
