"""`python -m mta`: the same as the command `mta`."""

from mta.cli.main import main

if __name__ == "__main__":
    main(prog_name="mta")
