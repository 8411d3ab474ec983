"""What is a network, once it is nothing but a list of steps?

`steps` has the step, the store and the program, `verify` says which programs are legal, `rewrites`
leave out work that would be done twice, `moments` merge the statistics that a step measures. It
knows no family, no size and no tensor: what a step *does* stands in `running`.
"""
