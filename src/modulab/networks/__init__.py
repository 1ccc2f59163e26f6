"""Networks: populations of one structure, each kind in its own file behind the contract in `base`."""
