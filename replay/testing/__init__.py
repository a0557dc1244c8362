"""For tests of applications and policies: a kernel that is checked at every step, and what may happen to it."""
