"""What a run will cost, told before it starts, and refused where it cannot fit."""
