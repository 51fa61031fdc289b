"""``python -m radioloader``."""

from radioloader.cli.main import main

if __name__ == "__main__":
    main()
