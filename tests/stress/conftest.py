"""Real mounts under load: the fixtures of tests/mount."""

from tests.mount.conftest import mount, published_models, registry, registry_dir, start_mount

__all__ = ["mount", "published_models", "registry", "registry_dir", "start_mount"]
