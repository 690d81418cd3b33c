"""course.html: the slides as pages, each with what our code computes, the lines that did it, and a command for more."""
