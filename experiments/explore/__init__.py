"""What changes when a part is switched off, here and now? Read subject.py (what is explored), experiment.py (what one
request asks for), compute.py (the forward passes that answer it), code.py (the same as Python), findings.py (what `make
ablate` found), server.py (the addresses), check.py (an exported experiment, run again), and in page/ the page itself,
from explore.js on; the views of attention are in lab/page."""
