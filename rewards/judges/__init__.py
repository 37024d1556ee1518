"""The parts of a judge: its key, limits, client, template, parser, votes and cache. `rewards.judge` puts them together."""
