"""How far a judge can be trusted: its verdicts against labels, and against text that tries to change them."""
