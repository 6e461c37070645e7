"""How due mail goes: router, limits in force, pool, lanes, connections."""
