"""The rooms of the mesh, the kit they are made of, and the executable."""
