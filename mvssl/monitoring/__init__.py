"""What a run knows of itself while it trains: held-out loss and bounds, a verdict in words, mispaired samples."""
