"""Drafts that a signal ends at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnx.store.drafts import drafted


def test_a_signal_while_a_draft_is_made_leaves_no_draft(tmp_path, monkeypatch):
    """SIGTERM becomes SystemExit between any two instructions, such as after the folder is there."""
    mkdir = Path.mkdir

    def made_and_ended(folder, *arguments, **options):
        mkdir(folder, *arguments, **options)
        if folder.suffix == ".draft":
            raise SystemExit(143)

    monkeypatch.setattr(Path, "mkdir", made_and_ended)
    with pytest.raises(SystemExit), drafted(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
