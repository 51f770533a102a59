"""The demo: photos of an object of the project's own making, with known cameras and surface."""

from pipeline.demo.render import render_demo

__all__ = ["render_demo"]
