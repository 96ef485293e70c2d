"""The penguin command, one file per subcommand."""
