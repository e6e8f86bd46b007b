"""`python -m peftlab` is the command `peftlab`."""

from peftlab.cli import main

main()
