"""Cameras, rotations, similarities and epipolar geometry in numpy."""
