"""What inspect shows, as data."""
