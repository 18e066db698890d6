"""The trainer's plan of a run before it is a job: tokens, time, memory and money, from the small files of the base.

It calls what the training process calls (`engine/report/choices.py`, `domain/recipe.py`), and needs no torch.
"""
