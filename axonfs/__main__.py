"""The program `axonfs`, also as `python -m axonfs`, which a mount uses for its own processes."""

import sys


def main() -> int:
    """Run the command line; completion in a shell has no time for what the commands import."""
    if sys.argv[1:2] == ["__complete"]:
        from axonfs.cli.completing.complete import main as complete

        return complete(sys.argv[2:])
    from axonfs.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
