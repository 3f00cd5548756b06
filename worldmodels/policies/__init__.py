"""What acts: the checks that all policies share."""
