"""The prediction term, a question a file: which transitions, how much, in what shares, what,
how far ahead, and by which loss.

Each is a dict of functions by the name that `[paw]` gives; an extension is one function more.
"""
