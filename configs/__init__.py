"""Presets: one YAML file each, named by `--preset`."""
