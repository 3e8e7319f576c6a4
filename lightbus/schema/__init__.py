"""JSON Schemas of events, and which changes break a listener."""
