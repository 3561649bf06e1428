"""`python -m diffspace`, for where the command is not on the path."""

from diffspace.cli import main

main()
