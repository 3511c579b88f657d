"""How is a small GPT-2 trained from scratch on novels? Read training.py, softmax.py, figures.py."""
