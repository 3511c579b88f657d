"""One folder per question. Its script has the same name; so have its results, runs/NAME/<experiment>/."""
