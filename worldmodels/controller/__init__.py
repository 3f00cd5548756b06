"""Controller (C): few parameters on [z, h], and the evolution strategies that find them."""
