"""A folder goes to the hub, with a model card (`peftlab.report.model_card`)."""

from __future__ import annotations

from pathlib import Path

from peftlab.errors import InputError
from peftlab.files import write_text

_KINDS = {  # a file of the export -> the library that reads it
    "adapter_config.json": "peft",
    "config.json": "transformers",
    "adaptation.json": "peftlab",
    "prompts.json": "peftlab",
}


def push(
    folder: Path | str,
    repo_id: str,
    card: str,
    *,
    private: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Write the card into the folder and upload all of it; returns the address.

    Args:
        private: whether a repository that does not exist yet is made private.
        endpoint, token: the hub's address and the user's token; huggingface_hub's own where None.

    Raises:
        InputError: nothing that peftlab exports is in the folder, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(folder)
    kind_of(folder)
    write_text(folder / "README.md", card)
    api = HfApi(endpoint=endpoint, token=token)
    try:
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Adaptation made with peftlab"
        )
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot upload to {repo_id}: {reason} Log in with `hf auth login`, and give the name "
            "as user/name."
        ) from error
    return str(made)


def kind_of(folder: Path) -> str:
    """The library that reads a folder.

    Raises:
        InputError: no export is in it.
    """
    for name, library in _KINDS.items():
        if (folder / name).exists():
            return library
    raise InputError(f"{folder} holds no export: one of {', '.join(_KINDS)} was expected")
