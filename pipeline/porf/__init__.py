"""The pose residual field (PoRF), the neural surface, and their joint training."""
