"""What the GPU benchmarks share; run `gpu_speed.py` and `gpu_shapes.py` beside this folder.

Here: networks and their contestants, the state that is timed, shapes of layers, timing, profiles.
Not here: what is printed, which the two scripts decide.
"""
