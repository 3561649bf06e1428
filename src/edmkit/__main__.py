"""`python -m edmkit`, for where the command is not on the path."""

from edmkit.cli import main

main()
