"""This project's speed beside its peers; see README.md."""
