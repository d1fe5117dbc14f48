"""Real mounts for chaos: the fixtures of tests/mount."""

from tests.mount.conftest import registry, registry_dir, start_mount

__all__ = ["registry", "registry_dir", "start_mount"]
