"""Access to OCI registries: names, credentials and tokens, manifests, refusals.

Above http_client, below the sources, which read models from such registries, and `publish`, which
writes them. Blocking; any thread. The modules for manifests are pure.
"""

from axonfs.oci.place import Place, Reference, place_of, reference_of
from axonfs.oci.signer import OciSigner

__all__ = ["OciSigner", "Place", "Reference", "place_of", "reference_of"]
