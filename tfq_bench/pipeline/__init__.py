"""The stages of a cell, one a file, and the order in which they run (`cell.py`)."""
