"""Encodes values as JSON, and decodes JSON into the types that a handler annotates."""
