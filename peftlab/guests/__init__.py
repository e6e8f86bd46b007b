"""Guests: methods that PEFT has and peftlab has not, compared under the same conditions.

    guest = Guest.parse("peft:oft")
    base = PlainBase.load("gpt2")                     # a copy of its own: PEFT changes it
    model = train(base, guest, task, config).adaptation   # the same TrainConfig, rows and order
    loss = split_loss(model, task, "test")            # SplitLoss
    result = evaluate(model, task)                    # Evaluation, through transformers' generate
    model.save(folder)                                # PEFT's own folder

They make no edits, so they are in no mixed batch and share nothing between rows.
"""

from peftlab.guests.evaluation import evaluate, generate, split_loss, text_loss
from peftlab.guests.guest import Guest, is_guest
from peftlab.guests.model import GuestModel, PlainBase
from peftlab.guests.training import train

__all__ = [
    "Guest",
    "GuestModel",
    "PlainBase",
    "evaluate",
    "generate",
    "is_guest",
    "split_loss",
    "text_loss",
    "train",
]
