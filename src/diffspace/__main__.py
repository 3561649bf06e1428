"""`python -m diffspace`, where the command is not on the path."""

from diffspace.cli import main

main()
