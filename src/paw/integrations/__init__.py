"""PaW in other people's trainers; each integration behind an extra of its own."""
