"""Golden vectors against this implementation: read, compute anew, compare. Knows no backend; the caller brings one."""
