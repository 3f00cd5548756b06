"""What acts: agents alone, under planners, under trained networks, and several together."""
