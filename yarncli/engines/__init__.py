"""What each inference engine makes of a RoPE config, one module per engine."""
