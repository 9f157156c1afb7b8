"""What tests of several rooms share; `from support.program import invoke` and the like.

`architectures`: tiny models of every architecture. `baking_cases`: tiny checkpoints with YaRN.
`checkpoints`: small checkpoints, the demo, what a directory holds. `engine_cases` and
`engine_oracle`: configs for every engine, and what transformers computes for them. `kills`: a run
that is killed at every system call. `minihub`: a local Hub. `program`: the yarncli program.
"""
