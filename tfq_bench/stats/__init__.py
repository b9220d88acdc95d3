"""Intervals, comparisons and gates over numbers; knows numpy, not torch."""
