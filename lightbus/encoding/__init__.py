"""Values to JSON and back, and JSON to the types of a handler."""
