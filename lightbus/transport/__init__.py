"""The border to brokers: the contract, its values, and what transports share."""
