"""Pictures: of what the code does, and of what a run has learnt."""
