"""Which activations carry what one text says and another does not? Read pairs.py (the texts that are compared)."""
