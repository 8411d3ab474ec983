"""How does a folder of clips become a folder of latents that trainers read?

`buckets` chooses sizes, `clips` finds what there is to do, `encoding` does one clip, `running` does
all of them, `ray_workers` in many processes, and `checking` looks at the result.
"""
