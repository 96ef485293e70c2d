"""The training recipe, and the nano model that comes out of it. Used offline."""
