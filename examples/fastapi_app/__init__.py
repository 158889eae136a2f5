"""The demo: live figures of this machine, a wall to write on and the operator's switches."""
