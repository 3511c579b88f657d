"""Pictures of embed.py, drawn from its tables."""
