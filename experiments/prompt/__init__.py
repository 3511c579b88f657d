"""What does GPT-2 say of a class without a head? Prompts, label words, and priors taken out: prompt.py."""
