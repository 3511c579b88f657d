"""One folder per question. Its script has the same name; so have its results, runs/NAME/<experiment>/."""

import lab as lab  # first, for it imports matplotlib where the environment would not let us
