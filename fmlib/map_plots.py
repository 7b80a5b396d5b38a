"""The figures of frequency maps."""
