"""Operations on a running system, and documents that describe it."""
