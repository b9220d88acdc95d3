"""What `cpu_speed.py` is made of: the networks that are timed, and the contestants."""
