"""Describes events in JSON Schema, and finds the changes that break a listener."""
