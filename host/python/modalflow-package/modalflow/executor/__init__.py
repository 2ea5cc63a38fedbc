"""The executor, and its conversation with the host. Importing this costs nothing."""

from __future__ import annotations


def __getattr__(name: str):
    if name == "ModalExecutor":
        from modalflow.executor.modal_executor import ModalExecutor

        return ModalExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
