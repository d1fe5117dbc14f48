"""Real mounts for chaos: the fixtures of tests/mount."""

from tests.mount.conftest import mount, registry, registry_dir, start_mount

__all__ = ["mount", "registry", "registry_dir", "start_mount"]
