"""`python -m operations`: what the launcher becomes."""

from operations.cli import main

if __name__ == "__main__":
    main(prog_name="countinghouse")
