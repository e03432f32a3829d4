"""What lets us in: from options, variables and addresses to headers, without a value in any message."""

from __future__ import annotations

import pickle
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loadgen.wire.access import (
    MASK,
    NO_ACCESS,
    Access,
    access_of,
    masked_address,
    masked_header,
    redirect_target,
    split_userinfo,
    unix_path,
)

SECRET = "sk-5ecret"


def headers_of(environ: Mapping[str, str] | None = None, **options: Any) -> Mapping[str, str]:
    return dict(access_of(environ or {}, **options).headers)


def test_without_options_nothing_is_shown() -> None:
    assert access_of({"OLLAMA_API_KEY": SECRET}) == NO_ACCESS


def test_a_key_is_a_bearer_token_and_headers_come_as_given() -> None:
    given = headers_of(
        {"K": f" {SECRET}\t", "TENANT": "Bearer x=y"}, api_key_env="K", header_env=["X-Tenant=TENANT"],
        header=["X-Team=a=b", "x-latin=é"],
    )  # fmt: skip
    assert given == {
        "Authorization": f"Bearer {SECRET}", "X-Tenant": "Bearer x=y", "X-Team": "a=b", "x-latin": "é",
    }  # fmt: skip


def test_names_are_compared_without_case_and_in_order() -> None:
    access = access_of({"B": "1234"}, header=["X-C=1", "x-A=2"], header_env=["x-b=B"])
    assert access.names == ("x-a", "x-b", "x-c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key_env": "NOT_SET"}, "--api-key-env: the variable NOT_SET is not set: export it, or name another"),
        ({"api_key_env": SECRET},
         "--api-key-env does not name a variable that is set: give the name of one, not its value"),
        ({"api_key_env": "EMPTY"}, "--api-key-env EMPTY: the value is empty: give one, or leave the option out"),
        ({"api_key_env": "BLANK"}, "--api-key-env BLANK: the value is empty: give one, or leave the option out"),
        ({"api_key_env": "LINES"},
         "--api-key-env LINES: the value has a line break or another control character: remove it"),
        ({"header_env": ["X-A=LINE"]},
         "--header-env X-A LINE: the value has a line break or another control character: remove it"),
        ({"header": ["X-A=a\x00b"]},
         "--header X-A: the value has a line break or another control character: remove it"),
        ({"header": ["X-A=a\x7fb"]},
         "--header X-A: the value has a line break or another control character: remove it"),
        ({"api_key_env": "GREEK"},
         "--api-key-env GREEK: the value has letters outside Latin-1, which no header can carry"),
        ({"header_env": [f"X-A={SECRET}"]},
         "--header-env X-A does not name a variable that is set: give the name of one, not its value"),
        ({"header_env": ["X-A"]}, "--header-env does not begin with a header's name and '=': write NAME=VARIABLE"),
        ({"header": [f"Authorization: Bearer {SECRET}="]},
         "--header does not begin with a header's name and '=': write NAME=VALUE"),
        ({"header": [f"={SECRET}"]}, "--header does not begin with a header's name and '=': write NAME=VALUE"),
        ({"header": ["X-Ä=1"]}, "--header does not begin with a header's name and '=': write NAME=VALUE"),
        ({"header": ["X-A="]}, "--header X-A: the value is empty: give one, or leave the option out"),
        ({"header": ["HOST=a"]}, "--header HOST: structbench sets this header itself: leave it out"),
        ({"header": ["Content-Length=1"]},
         "--header Content-Length: structbench sets this header itself: leave it out"),
        ({"header": ["transfer-encoding=x"]},
         "--header transfer-encoding: structbench sets this header itself: leave it out"),
        ({"header": ["Connection=close"]}, "--header Connection: structbench sets this header itself: leave it out"),
        ({"header": ["X-A=1", "x-a=2"]}, "the header x-a is given twice; leave one out"),
        ({"api_key_env": "K", "header": [f"authorization={SECRET}"]},
         "the header authorization is given twice: by the key in K and by --header authorization; leave one out"),
        ({"cert": ["a", "b", "c"]}, "--cert takes a certificate and its key, in one file or in two"),
        ({"insecure": True, "ca": "x.pem"},
         "--insecure takes any certificate, --ca names those to trust: leave one out"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_without_the_value(options: dict[str, Any], message: str) -> None:
    environ = {"K": SECRET, "EMPTY": "", "BLANK": " \t", "LINES": f"{SECRET}\n", "LINE": "a\rb", "GREEK": "κλειδί"}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        access_of(environ, **options)
    assert str(caught.value) == message
    assert SECRET not in str(caught.value)


def test_the_apis_own_key_counts_if_there_is_no_other() -> None:
    environ = {"OLLAMA_API_KEY": SECRET, "K": "another"}
    own = NO_ACCESS.completed(None, "OLLAMA_API_KEY", environ)
    assert dict(own.headers) == {"Authorization": f"Bearer {SECRET}"}
    with_header = access_of(environ, header=["X-Team=a"]).completed(None, "OLLAMA_API_KEY", environ)
    assert dict(with_header.headers) == {"X-Team": "a", "Authorization": f"Bearer {SECRET}"}
    given = access_of(environ, api_key_env="K").completed(None, "OLLAMA_API_KEY", environ)
    assert dict(given.headers) == {"Authorization": "Bearer another"}
    address = NO_ACCESS.completed("ada:word", "OLLAMA_API_KEY", environ)
    assert dict(address.headers) == {"Authorization": f"Basic {b64encode(b'ada:word').decode()}"}


@pytest.mark.parametrize("environ", [{}, {"OLLAMA_API_KEY": ""}, {"OLLAMA_API_KEY": "  "}])
def test_an_empty_variable_that_nobody_named_is_no_key(environ: dict[str, str]) -> None:
    assert NO_ACCESS.completed(None, "OLLAMA_API_KEY", environ).headers == ()


def test_the_apis_own_key_must_fit_into_a_header() -> None:
    with pytest.raises(ValueError, match=r"^OLLAMA_API_KEY: the value has a line break"):
        NO_ACCESS.completed(None, "OLLAMA_API_KEY", {"OLLAMA_API_KEY": "a\nb"})


def test_credentials_in_the_address_are_decoded() -> None:
    (header,) = NO_ACCESS.completed("ad%C3%A4:p%40%3A%2F", None, {}).headers
    assert header == ("Authorization", f"Basic {b64encode('adä:p@:/'.encode()).decode()}")


def test_two_ways_to_say_who_we_are_are_one_too_many() -> None:
    access = access_of({"K": SECRET}, api_key_env="K")
    with pytest.raises(ValueError, match="given twice: by the key in K and by the user and password in the address"):
        access.completed("ada:word", "OLLAMA_API_KEY", {})


@pytest.mark.parametrize(
    ("host", "bare", "userinfo", "masked"),
    [
        ("https://ada:w@gpu:1/x", "https://gpu:1/x", "ada:w", "https://***@gpu:1/x"),
        ("ada:w@gpu", "gpu", "ada:w", "***@gpu"),
        ("https://ada@gpu", "https://gpu", "ada", "https://***@gpu"),
        ("https://ada:a@b@gpu", "https://gpu", "ada:a@b", "https://***@gpu"),
        ("http+unix://ada:w@%2Frun%2Fx", "http+unix://%2Frun%2Fx", "ada:w", "http+unix://***@%2Frun%2Fx"),
        ("https://gpu/a@b", "https://gpu/a@b", None, "https://gpu/a@b"),
        ("https://gpu?x=a@b", "https://gpu?x=a@b", None, "https://gpu?x=a@b"),
        ("[::1]:11434", "[::1]:11434", None, "[::1]:11434"),
        ("", "", None, ""),
    ],
)
def test_credentials_are_taken_out_of_an_address(host: str, bare: str, userinfo: str | None, masked: str) -> None:
    assert split_userinfo(host) == (bare, userinfo)
    assert masked_address(host) == masked


def test_a_headers_value_is_masked_with_all_its_signs() -> None:
    assert masked_header("X-A=b=c") == "X-A=***"


@pytest.mark.parametrize(
    ("access", "status", "told"),
    [
        (NO_ACCESS, 401, "HTTP 401: give --api-key-env"),
        (NO_ACCESS.completed(None, "OLLAMA_API_KEY", {}), 401, "HTTP 401: set OLLAMA_API_KEY or give --api-key-env"),
        (NO_ACCESS.completed(None, "OLLAMA_API_KEY", {}), 403, "HTTP 403: set OLLAMA_API_KEY or give --api-key-env"),
        (NO_ACCESS.completed(None, "A_KEY", {"A_KEY": SECRET}), 401,
         "HTTP 401: the server does not accept the key in A_KEY"),
        (NO_ACCESS.completed(None, "A_KEY", {"A_KEY": SECRET}), 403,
         "HTTP 403: the server does not allow this with the key in A_KEY"),
        (NO_ACCESS.completed("a:b", "A_KEY", {}), 401,
         "HTTP 401: the server does not accept the user and password in the address"),
        (access_of({}, header=["X-Key=abcd"]), 401, "HTTP 401: x-key is not enough: give --api-key-env"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_set(access: Access, status: int, told: str) -> None:
    assert access.refusal(status) == told


def test_no_secret_is_in_a_repr_or_in_what_a_server_repeats() -> None:
    access = access_of({"K": SECRET}, api_key_env="K", header=["X-A=Token other-secret", "X-B=on"])
    assert SECRET not in repr(access)
    assert "other-secret" not in repr(access)
    assert access.masked(f"wrong key: {SECRET}, Bearer {SECRET}; other-secret") == "wrong key: ***, ***; ***"
    assert access.masked("go on") == "go on", "a text as short as that is in many words"
    by_address = NO_ACCESS.completed("ada:w%40rd", None, {})
    assert by_address.masked("ada:w@rd ada:w%40rd w@rd " + b64encode(b"ada:w@rd").decode()) == "*** *** *** ***"


def test_it_goes_to_another_process_whole() -> None:
    access = access_of({"K": SECRET}, api_key_env="K", header=["X-A=b"])
    assert pickle.loads(pickle.dumps(access)) == access


@pytest.mark.parametrize(
    ("address", "path"), [("unix:///run/x.sock", "/run/x.sock"), ("http://unix", None), ("unix://run/x", None)]
)
def test_the_path_of_a_socket(address: str, path: str | None) -> None:
    assert unix_path(address) == path


@pytest.mark.parametrize(
    "name",
    ["accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive",
     "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"],
)  # fmt: skip
def test_headers_of_the_connection_the_body_and_the_client_are_not_given(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name.title()}: structbench sets this header itself"):
        access_of({}, header=[f"{name.title()}=x"])


# Access by name, for another machine


def test_values_of_variables_are_left_out_and_taken_from_the_other_machines_environment() -> None:
    ours = {"GATEWAY_KEY": "ours-1", "TEAM_KEY": "ours-2", "OPENAI_API_KEY": "ours-3"}
    theirs = {name: value.replace("ours", "theirs") for name, value in ours.items()}
    access = access_of(ours, api_key_env="GATEWAY_KEY", header_env=["X-Team-Key=TEAM_KEY"], header=["X-Note=a"])
    told = access.by_name()
    assert told.headers == (("X-Note", "a"),)
    assert "ours" not in repr([getattr(told, name) for name in ("headers", "secrets", "variables", "given_by")])
    there = told.from_environment(theirs)
    assert dict(there.headers) == {
        "X-Note": "a", "Authorization": "Bearer theirs-1", "X-Team-Key": "theirs-2"
    }  # fmt: skip
    assert there.masked("theirs-1 theirs-2") == "*** ***"
    assert dict(told.from_environment(ours).headers) == dict(access.headers)
    own = Access().completed(None, "OPENAI_API_KEY", ours).by_name()
    assert own.headers == ()
    assert own.from_environment(theirs).headers == (("Authorization", "Bearer theirs-3"),)


def test_another_machine_masks_and_names_what_was_given_as_this_one_does() -> None:
    ours = {"KEY": "sk-5ecret-ours"}
    access = access_of(ours, header_env=["authorization=KEY"], header=["X-Team=Token t0p-secret"])
    there = access.by_name().from_environment({"KEY": "sk-5ecret-theirs"})
    said = "sk-5ecret-theirs and Token t0p-secret, that is t0p-secret"
    assert there.masked(said) == f"{MASK} and {MASK}, that is {MASK}"
    assert there.refusal(401) == access.refusal(401) == (
        "HTTP 401: the server does not accept --header-env authorization"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-Api-Key", "api-key", "Cookie"])
def test_a_key_that_is_given_as_it_is_does_not_go_to_other_machines(name: str) -> None:
    access = access_of({"TEAM": "t"}, header=[f"{name}=Bearer {SECRET}"], header_env=["X-Team=TEAM"])
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        access.by_name()
    assert str(caught.value) == (
        f"--header {name} would be sent to other machines: give --header-env {name}=VARIABLE"
    )  # fmt: skip
    assert access_of({"KEY": SECRET}, header_env=[f"{name}=KEY"]).by_name().headers == ()


def test_files_of_certificates_are_those_at_the_same_place_there() -> None:
    told = Access(ca="ca.pem", cert=("c.pem", "/k.pem")).by_name()
    here = Path.cwd()
    assert (told.ca, told.cert) == (str(here / "ca.pem"), (str(here / "c.pem"), "/k.pem"))
    assert (NO_ACCESS.by_name().ca, NO_ACCESS.by_name().cert) == (None, ())


def test_a_variable_that_another_machine_lacks_and_a_password_in_the_address_are_told() -> None:
    told = access_of({"KEY": "k"}, api_key_env="KEY").by_name()
    for environ in ({}, {"KEY": "  "}):
        with pytest.raises(ValueError, match=r"^the variable KEY is not set$"):
            told.from_environment(environ)
    with pytest.raises(ValueError, match="would be sent to other machines: give --header-env Authorization=VARIABLE"):
        Access().completed("user:secret", None, {}).by_name()


@pytest.mark.parametrize(
    "written", ["k&y/1+2=\"\u00e9", "k%26y/1%2B2%3D%22%C3%A9", "k%26y%2F1%2B2%3D%22%C3%A9", "k&amp;y/1+2=&quot;\u00e9",
                'k&y/1+2=\\"\u00e9', 'k&y/1+2=\\"\\u00e9']
)  # fmt: skip
def test_a_secret_is_masked_however_a_server_writes_it(written: str) -> None:
    access = access_of({"K": 'k&y/1+2="\u00e9'}, header_env=["X-A=K"])
    assert access.masked(f"<a href='?key={written}'>") == "<a href='?key=***'>"


@pytest.mark.parametrize(
    ("location", "leads"),
    [("/login", "http://a/login"), ("https://b/v1", "https://b/v1"), ("", "http://a/v1/x"), ("http://[x", "http://[x")],
)
def test_a_redirect_leads_somewhere_or_nowhere(location: str, leads: str) -> None:
    assert redirect_target("http://a/v1/x", location) == leads
