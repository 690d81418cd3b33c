"""One run, or many stacked: the step, the loop around it, and what a step is made of."""
