"""Integrations with other libraries for metrics and traces."""
