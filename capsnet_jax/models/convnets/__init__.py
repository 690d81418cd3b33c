"""The classic conv nets, one paper a file."""
