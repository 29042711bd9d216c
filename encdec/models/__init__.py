"""The model families as Linen modules, one file each; `registry` builds one from its config."""
