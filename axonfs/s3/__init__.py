"""Access to S3 and to other object stores with its protocol: accounts, signatures, faults.

Above http_client, below the sources, which read registries in buckets, and the storages, which
write them. Credentials, endpoints and signatures come from botocore, in the extra `axonfs[s3]`; it
is imported when a bucket is first used. Blocking; any thread.
"""

from axonfs.s3.account import Account
from axonfs.s3.faults import Refusal, RefusedError, translating
from axonfs.s3.place import Place, place_of
from axonfs.s3.signer import S3Signer

__all__ = ["Account", "Place", "Refusal", "RefusedError", "S3Signer", "place_of", "translating"]
