"""Can GPT-2 learn to classify these texts? Read start.py (the network), steps.py (one step), parallel.py (on several
devices), training.py (all of them), measure.py (how good the result is), figures.py; frozen.py (what is not trained
runs once); vocabulary.py (embeddings that no text uses); regularisers.py (what is hidden inside attention meanwhile);
and words.py (a language model that names the class)."""
