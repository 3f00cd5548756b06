"""Policies: agents under planners, under trained networks, and in ensembles."""
