"""The trained demo checkpoint that ships with the package."""
