"""The process that quantizes and executes with SDNQ, and what it shares with ours.

SDNQ is under the GPL-3.0 and no part of ours: the user installs it, and `program.py` runs in an
interpreter of the user's. The files of this folder need torch and each other, nothing of
`tfq_bench`; whoever passes them on together with SDNQ does that under the GPL-3.0, which their own
licence, Apache-2.0, allows.
"""
