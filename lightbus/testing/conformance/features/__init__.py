"""What a transport does that lists a feature: one file a feature."""
