"""`python -m flows.cli` is `porf`."""

from flows.cli import main

main()
