"""Publishing to the Hub."""
