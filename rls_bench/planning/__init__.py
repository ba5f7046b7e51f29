"""What a call need not decide again: plans, and the operator's memory of them."""
