"""From a trained field to a mesh: extraction, cleaning, colour, export."""
