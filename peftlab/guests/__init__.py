"""Guests: methods that PEFT has and peftlab has not, compared under the same conditions.

    guest = Guest.parse("peft:oft")
    base = PlainBase.load("gpt2")                     # a copy of its own: PEFT changes it
    model = train(base, guest, task, config).adaptation   # the same TrainConfig, rows and order
    loss = split_loss(AdaptedGuest(model), task, "test")  # of peftlab.evaluation, as for our own
    result = evaluate(AdaptedGuest(model), task)      # through transformers' generate
    model.save(folder)                                # PEFT's own folder

They make no edits, so they are in no mixed batch and share nothing between rows.
"""

from peftlab.guests.evaluation import AdaptedGuest, generate, text_loss
from peftlab.guests.guest import Guest, is_guest
from peftlab.guests.model import GuestModel, PlainBase
from peftlab.guests.training import train

__all__ = [
    "AdaptedGuest",
    "Guest",
    "GuestModel",
    "PlainBase",
    "generate",
    "is_guest",
    "text_loss",
    "train",
]
