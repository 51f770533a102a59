"""The domain: cameras, structure from motion, PoRF training, surfaces and their measure.

Importable as a library. Knows nothing of Prefect or of the command line.
"""
