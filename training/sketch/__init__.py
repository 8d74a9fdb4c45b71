"""EMER-Sketch: drawn faces that speak, with the truth about what they show."""
