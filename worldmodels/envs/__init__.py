"""Environments: any Gymnasium environment with pixels, and CarRacing with fast ones."""
