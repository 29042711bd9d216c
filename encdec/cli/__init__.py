"""The command line: one file for each command. All printing and reading of options is here."""
