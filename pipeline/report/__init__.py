"""The report: one self-contained HTML page about a run, and its pictures as files."""
