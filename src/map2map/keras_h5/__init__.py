"""Networks in Keras's HDF5 files (``model.h5``), read and written without Keras.

A file holds a JSON text that lists layers and what they are connected to, and the weights by layer.
Keras 2 and 3 write it differently; both are read. What is written is the form of Keras 2 with
nothing but standard layers, which both read. A layer that is not known is refused by its name,
because a network without it would give other numbers.

- `layers`: a network as a list of steps
- `settings`: layers that can be read, and which of their settings
- `reading`, `writing`: from and to files
- `networks`: from and to the models that pad
"""
