"""Other libraries that watch what is fired and handled."""
