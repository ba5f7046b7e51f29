"""What machine is this: its fingerprint, its processor, its GPU and the driver's word on it."""
