"""Many cases on one machine: `porf batch`."""
