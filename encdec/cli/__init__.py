"""The command line: one file a command. What it prints and reads stays here."""
