"""Where GANs fail, as experiments: each has a figure that tells the failure from its cure.

Mode collapse (`collapse`), the vanishing gradient (`vanishing`), orbits that do not converge
(`dirac`), and an energy that is flat off the manifold (`flatness`); `verdicts` judges them over
seeds. All are in two dimensions or fewer, so that they can be drawn.
"""
