"""The run directory as a typed format (`format`), its one writer (`write`) and reader (`read`)."""
