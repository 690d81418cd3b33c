"""Many runs, safely: planned, trained in the fewest programs, recorded, continued."""
