"""Can GPT-2 learn to classify these texts? Read steps.py (one step), training.py (all of them), measure.py (how good
the result is), figures.py."""
