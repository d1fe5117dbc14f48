"""No secret survives in a bundle's text, and what is none does."""

from __future__ import annotations

import base64

import pytest

from axonfs.cli.bundle.facts import variables_shown
from axonfs.cli.bundle.redaction import REMOVED, Redactor
from axonfs.cli.bundle.secrets import known_secrets

SECRET = "s3cr3t/Pa+ss:word~42"
PLAIN = base64.b64encode(f"alice:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "http://alice:KEEPOUT42@host:8443/nlp/a@1.0.0?x=1",
        "http://KEEPOUT42@host/",
        "https://alice:KEEP/OUT42@host/x is not a URL",
        "s3://bucket/x?profile=p&X-Amz-Signature=KEEPOUT42",
        "https://cdn/x?Expires=KEEPOUT42&Signature=KEEPOUT42&Key-Pair-Id=KEEPOUT42#KEEPOUT42",
        "https://cdn/x?KEEPOUT42",
        r'{"url": "https://cdn/x?a=KEEPOUT42\u0026X-Amz-Signature=KEEPOUT42"}',
        "HTTPS_PROXY=alice:KEEPOUT42@proxy:3128",
        "Authorization: Bearer KEEPOUT42",
        "authorization: KEEPOUT42 KEEPOUT42",
        "[(b'Authorization', b'Basic KEEPOUT42=='), (b'Accept', b'*/*')]",
        r'"{\"Authorization\": \"Bearer KEEPOUT42\"}"',
        '{"Proxy-Authorization":"KEEPOUT42"}',
        "Cookie: a=KEEPOUT42; b=KEEPOUT42",
        "X-Auth-Token: KEEPOUT42",
        "x-amz-security-token=KEEPOUT42",
        "sent Bearer KEEPOUT42 there",
        "token: KEEPOUT42",
        "HF_TOKEN=KEEPOUT42",
        "db_password = 'KEEPOUT42'",
        "passphrase=KEEPOUT42",
        '"aws_secret_access_key": "KEEPOUT42"',
        "hf_KEEPOUT42KEEPOUT42",
        "-----BEGIN RSA PRIVATE KEY-----\nKEEPOUT42\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nKEEPOUT42\n",
        "eyJKEEPOUT42.eyJKEEPOUT42.KEEPOUT42",
    ],
)
def test_what_looks_like_a_secret_goes(text: str) -> None:
    redact = Redactor()
    found = redact(text)
    assert "KEEP" not in found
    assert "OUT42" not in found
    assert REMOVED in found
    assert redact.count > 0


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        "s3cr3t%2FPa%2Bss%3Aword~42",
        base64.b64encode(SECRET.encode()).decode(),
        f"before{SECRET}after",
    ],
)
def test_a_known_secret_goes_wherever_it_is(form: str) -> None:
    found = Redactor([SECRET])(f"a line {form} of a log")
    assert form not in found
    assert found.startswith("a line ")
    assert found.endswith(" of a log")


def test_the_password_of_a_known_log_in_goes_without_its_user() -> None:
    found = Redactor(["alice:geheim-99"])(f"geheim-99 alice {PLAIN[:0]}")
    assert found == f"{REMOVED} alice "


@pytest.mark.parametrize(
    "text",
    [
        "nlp/llama@1.0.0 tokenizer.json: not found (from http://registry:8443/nlp/llama/1.0.0)",
        "tokenizer_config.json: 12 KiB",
        "tokens.yaml: its mode 0644 lets other users read the tokens in it",
        '"tokens": {"value": {"http://registry:8443": "set"}, "from": "/etc/axonfs/tokens.yaml"}',
        "s3://bucket/models?region=eu-central-1&endpoint_url=http://minio:9000",
        "oci://localhost:5000/models?alias=lab",
        "http://[::1]:8443/index.json?n=100&last=x",
        "http://cache-1:8080 at 10.0.0.7",
        "oci/lab/tiny:v1@sha256:0123456789abcdef and nlp/tiny@1.0.0 model.bin: 5",
        "2026-11-30T06:39:23Z INFO axonfs.fetch: nlp/tiny@1.0.0 a/b.bin: gone",
        "HF_TOKEN=(set)",
        "AXONFS_REQUIRE_SIGNATURE=nlp=release@example.com",
        "hf/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "answered 401; set its token: axonfs registry add URL --with-token",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor(["short"])(text) == text


def test_the_headers_of_opentelemetry_are_secret() -> None:
    """Each service has a header of its own for its key."""
    variables = {"OTEL_EXPORTER_OTLP_HEADERS": "x-honeycomb-team=KEEPOUT42,tenant=KEEPOUT43"}
    assert variables_shown(variables) == "OTEL_EXPORTER_OTLP_HEADERS=(set)"
    assert {"KEEPOUT42", "KEEPOUT43"} <= known_secrets([variables])
