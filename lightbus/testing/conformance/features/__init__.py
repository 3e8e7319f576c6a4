"""The optional features: one file a feature."""
