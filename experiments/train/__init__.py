"""Can GPT-2 learn to classify these texts? Read start.py (the network), steps.py (one step), training.py (all of them),
measure.py (how good the result is), figures.py; frozen.py (what is not trained runs once); regularisers.py (what is
hidden inside attention meanwhile); and words.py (a language model that names the class)."""
