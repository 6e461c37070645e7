"""How much, how fast, how many: limits that are learned, set or shared."""
