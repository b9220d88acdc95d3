"""Run folders on disk: artefacts, records, leases and pandas views; knows no torch."""
