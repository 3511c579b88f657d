from .config import GPT2Config, InputError

__all__ = ["GPT2Config", "InputError"]
