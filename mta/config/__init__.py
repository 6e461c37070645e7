"""YAML -> frozen, typed settings; every complaint with file, line and column."""
