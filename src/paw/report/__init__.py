"""`paw report`: run directories, evaluations and comparisons as one page that opens from disk."""
