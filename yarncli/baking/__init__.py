"""Moving the attention factor from the config into the weights."""
