"""`python -m yarncli` is the command `yarncli`."""

from yarncli.cli.app import main

if __name__ == "__main__":
    main()
