"""What is wrong with this machine, its engine and its cameras, and the command that mends it. Changes nothing."""
