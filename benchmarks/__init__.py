"""One runner per claim. Each writes one JSON object and a report drawn from it; `pcm bench NAME` runs them."""
