"""The catalogue: one file a system, one function a file, named alike; its options are the function's arguments.

An entry only declares: equations, observables and default parameters, never how they are derived, solved or simulated.
"""
