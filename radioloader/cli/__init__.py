"""The command ``radioloader``."""
