"""Helpers that the commands share; no command is in here."""
