"""Operations on a running system for commands and the dashboard, and documents that describe it."""
