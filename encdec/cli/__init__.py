"""The command line: one module for each command. Only these modules parse options and print."""
