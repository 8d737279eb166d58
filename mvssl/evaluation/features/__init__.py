"""Features of frozen encoders: extracted once, kept, and joined for probes."""
