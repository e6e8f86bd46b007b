"""Names of bases: `demo` is the bundled model, `demo-0.3m` and the like are others of its kind
(`demo.sizes`), everything else is a folder, a hub id or a GGUF file (`gguf.is_gguf`)."""

from __future__ import annotations

from pathlib import Path

from peftlab.bases import gguf
from peftlab.demo.world import MODEL_FOLDER
from peftlab.errors import InputError

DEMO = "demo"


def located(name: str) -> str:
    """The folder, hub id or GGUF file that a name stands for.

    Raises:
        InputError: a demo base that has not been made yet.
    """
    from peftlab.demo import sizes

    if name in sizes.SIZES:
        if not sizes.is_made(name):
            raise InputError(
                f"{name} has not been made on this machine yet; that takes minutes: "
                f"python -m peftlab.demo.sizes {name}"
            )
        return str(sizes.folder(name))
    return str(MODEL_FOLDER) if name == DEMO else name


def is_here(name: str) -> bool:
    """Whether a model can be loaded without a network: from the disk, or from the hub's cache."""
    where = located(name)
    if gguf.is_gguf(where):
        return gguf.is_here(where)
    folder = Path(where)
    if folder.is_dir():
        return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(where, file), str) for file in files)


def words_of(name: str) -> str | None:
    """What kind of file a base is read from, where it is a GGUF file.

    Raises:
        InputError: it cannot be read, see `gguf.read_header`.
    """
    where = located(name)
    return gguf.read_header(gguf.file_of(where)).words if gguf.is_gguf(where) else None
