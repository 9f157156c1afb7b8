"""The rules of each inference engine, one module per engine."""
