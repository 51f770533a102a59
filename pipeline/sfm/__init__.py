"""Structure from motion: photos to cameras, a scene to train on, and verified matches."""
