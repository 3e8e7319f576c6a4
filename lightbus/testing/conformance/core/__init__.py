"""What every transport does: the contract."""
