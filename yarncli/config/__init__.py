"""Reading the text part of a `config.json`: layers, scopes, and what each model type assumes."""
