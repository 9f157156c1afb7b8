"""What tests of several rooms share; `from support.program import invoke` and the like.

`architectures`: tiny models of every architecture. `checkpoints`: small checkpoints, the demo, what
a directory holds. `configs`: small configs. `engine_cases` and `engine_oracle`: configs for every
engine, and what transformers computes for them. `kills`: a run that is killed at every system call.
`minihub`: a local Hub, with its writing and its Xet side in modules of their own. `program`: the
yarncli program.
"""
