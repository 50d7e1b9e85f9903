"""Libraries from PyPI on the overlay."""
