"""Measures of cameras, surfaces and images, each with its protocol stated beside the number."""
