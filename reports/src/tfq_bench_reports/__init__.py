"""Reports of tfq-bench runs as one self-contained HTML file."""
