"""Networks: populations of one structure, each kind in a file of its own behind the contract in `base`."""
