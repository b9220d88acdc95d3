"""The toolkit for quantizer and backend authors. Importing it imports torch."""
