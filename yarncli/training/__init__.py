"""Hand a conversion over to a trainer, guard it there, and make what comes back whole again."""
