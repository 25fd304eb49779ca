"""What is seen: frames, the things in them, and what they may be called. No question, no prompt, no plan."""
