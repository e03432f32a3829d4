"""Whose failure an error is: by the server's own words, never by what they quote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.api.blame import loops, model_error, own_words, refusal

ASKED: dict[str, Any] = {"model": "smollm2:135m", "format": True, "tools": True, "began": False}


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("reasoning is not available here", {"thinking"}),
        ("invalid JSON schema in format", {"format"}),
        ("m does not support tools", {"tools"}),
        ("this model does not support tool calling", {"tools"}),
        ('"m" does not support thinking', {"thinking"}),
        ('"json-tools:1b" does not support thinking', {"thinking"}),
        ("tools cannot be used with a grammar", {"tools", "format"}),
        ("no information", set()),
        ("error parsing tool call: raw='best tools'", set()),
        ("out of memory: unsupported format", set()),
        ("unsupported model format", set()),
        ("unable to load model: unknown file format", set()),
        ("failed to load model vocabulary required for format", {"format"}),
        ("", set()),
    ],
)
def test_what_a_refusal_is_about(text: str, about: set[str]) -> None:
    assert refusal(text) == about


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        # Ollama
        ('error parsing tool call: raw=\'{"city": "Oslo"\', err=unexpected end of JSON input', "broken_call"),
        ("error parsing tool call: raw='use the best tools', err=invalid character 'u'", "broken_call"),
        ("error parsing tool call: raw='token repeat limit reached', err=x", "broken_call"),
        ('{"error parsing tool call": "invalid character \'c\' looking for beginning of value"}', "broken_call"),
        ("gemma4 tool call parsing failed", "broken_call"),
        ("XML syntax error on line 7: element <function> closed by </parameter>", "broken_call"),
        ("unexpected end of JSON input", "broken_call"),
        ("prediction aborted, token repeat limit reached", "truncated"),
        ("tool 'get_wether' not found", "broken_call"),
        ("empty function name", "broken_call"),
        ("empty Laguna tool call name", "broken_call"),
        ("json: cannot unmarshal array into Go value of type map[string]interface {}", "broken_call"),
        ("expected element type <function> but have <functions>", "broken_call"),
        # llama.cpp, vLLM, Groq, as a gateway passes them on
        ('{"code":500,"message":"Failed to parse input at pos 12: </tool_call>","type":"server_error"}', "broken_call"),
        ('{"code":500,"message":"Failed to parse input at pos 12: best \\"schema', "broken_call"),
        ("The model produced output that does not match the expected peg-native format", "broken_call"),
        ("openai_harmony.HarmonyError: Unexpected token 12606 while expecting start token 200006", "broken_call"),
        ("Failed to call a function. Please adjust your prompt.", "broken_call"),
        ("[json.exception.parse_error.101] parse error at line 1, column 6: expected ':'", "broken_call"),
        ("Expecting ',' delimiter: line 1 column 54 (char 53)", "broken_call"),
        ("Unterminated string starting at: line 1 column 5 (char 4)", "broken_call"),
        (
            "litellm.InternalServerError: InternalServerError: OpenAIException - Failed to parse tool call "
            "arguments as JSON: [json.exception.parse_error.101] parse error at line 1, column 131",
            "broken_call",
        ),
        (
            'litellm.APIConnectionError: OllamaException - {"error":"error parsing tool call: raw=\'x\', err=y"}',
            "broken_call",
        ),
        (
            "Failed to generate JSON. Please adjust your prompt. See 'failed_generation'.",
            "broken_call",
        ),
        ("Generated JSON does not match the expected schema. Please adjust your prompt.", "broken_call"),
        ("tool call validation failed: attempted to call tool 'x' which was not in request.tools", "broken_call"),
        ("parameters for tool weather did not match schema: errors: [missing properties: 'city']", "broken_call"),
        ("Tool choice is required, but model did not call a tool", "broken_call"),
        ("Tool error: No function called", "broken_call"),
        ("model produced an invalid tool call", "broken_call"),
        ("unknown tool: forecast", "broken_call"),
        ("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "broken_call"),
        ("SyntaxError: Unexpected token } in JSON at position 5", "broken_call"),
        ("EOF while parsing a string at line 1 column 30", "broken_call"),
        ('{"error": "error parsing tool call: raw=\'{\\"a\\": \\"best tools', "broken_call"),
        ("Failed to parse input at pos 12: a rate limit of tools", "broken_call"),
        # The server's
        ("llama runner process has terminated: GGML_ASSERT(!grammar.stacks.empty()) failed", None),
        ("this GGUF file is version 1 format, no longer supported", None),
        ("MXFP4 format is not supported on this device", None),
        ("unsupported tokenizer format", None),
        ("unsupported 'gguf' format", None),
        ("lora adapter format not supported", None),
        ("unsupported dtype format", None),
        ("manifest: unsupported schema version 3", None),
        ("database schema is outdated", None),
        ("request body format is not valid JSON", None),
        ("invalid time format", None),
        ("error loading model: unsupported format", None),
        ("the weights are of an unknown format", None),
        ("invalid response format from upstream server", None),
        ("Unexpected empty grammar stack after accepting piece: } (1)", None),
        ("rate limit exceeded for tools tier", None),
        ("SIGSEGV while processing chat template with tools", None),
        ("error parsing tool call: llama runner process has terminated", None),
        ("tools service unavailable", None),
        ("schema registry not reachable", None),
        ("API key has invalid format", None),
        ("Failed to tokenize prompt: unsupported format", None),
        ("could not find tools", None),
        ("token limit exceeded for your plan", None),
        ("something: raw='use the best tools', err=x", None),
        ("something: raw='use the best hammers', err=x", None),
        ("cannot open 'schemas for tools'", None),
        ("the answer “an invalid format” was lost", None),
        ("unexpected EOF", None),
        ("an error was encountered while running the model: unexpected EOF", None),
        ("unsupported model format", None),
        # A no
        ("registry.ollama.ai/library/smollm2:135m does not support tools", "rejected"),
        ('invalid format: "yaml"; expected "json" or a JSON schema', "rejected"),
        ("it isn't a format that isn't known", "rejected"),
        ('Unrecognized schema: {"memory": 1}', "rejected"),
        ("`tools` is not supported", "rejected"),
        ("'tools' is not supported", "rejected"),
        ('unknown field "tools"', "rejected"),
        ("guided_json is not supported", "rejected"),
        ("structured outputs are not supported", "rejected"),
        ("json mode is not supported by this model", "rejected"),
        ("Input validation error: grammar is not supported", "rejected"),
        ("This response_format type is unavailable now", "rejected"),
        ("Invalid schema for response_format 'answer': 'additionalProperties' is required to be false.", "rejected"),
        ("Invalid schema for function 'weather': In context=(), 'x' is not permitted.", "rejected"),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", "rejected"),
        (
            "litellm.UnsupportedParamsError: ollama does not support parameters: ['response_format'], for model=m",
            "rejected",
        ),
        ('litellm.APIConnectionError: OllamaException - {"error":"m does not support tools"}', "rejected"),
        (
            "litellm.BadRequestError: XException - Error code: 400 - {'error': {'message': 'tools is not supported'}}",
            "rejected",
        ),
        ('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', "rejected"),
        ("The provided JSON schema contains features not supported by xgrammar.", "rejected"),
        ('Invalid JSON payload received. Unknown name "responseSchema": Cannot find field.', "rejected"),
        ("Invalid 'tools[0].function.name': string does not match pattern.", "rejected"),
        ("tools: Input should be a valid list", "rejected"),
        ("Error compiling grammar: unexpected token", "rejected"),
        ("This model does not support response format `json_schema`.", "rejected"),
        ('{"error": {"error": {"message": "tools are not supported", "code": 1}}}', "rejected"),
        ('{"detail": [1]}', None),
        ('[{"error": {"code": 400, "message": "Invalid response_format schema"}}]', "rejected"),
        ('Unimplemented keys: ["patternProperties"]', "rejected"),
        ('{"detail":[{"loc":["body","response_format"],"msg":"Extra inputs are not permitted"}]}', "rejected"),
    ],
)
def test_whose_failure_an_error_is(message: str, kind: str | None) -> None:
    assert model_error(message, 500, **ASKED) == kind


@pytest.mark.parametrize(
    ("message", "status", "asked", "kind"),
    [
        ("invalid character 'n' looking for beginning of value", 400, {}, None),
        ("unexpected end of JSON input", 500, {"tools": False}, None),
        ("unexpected end of JSON input", 200, {"began": True}, "broken_call"),
        ("error parsing tool call: raw='x', err=y", 200, {"began": True, "tools": False}, "broken_call"),
        ("Failed to parse tool call arguments as JSON", 500, {"replayed": True}, None),
        ("Failed to parse tool call arguments as JSON", 500, {}, "broken_call"),
        ("error parsing tool call: raw='x', err=y", 500, {"replayed": True}, "broken_call"),
        ("json: cannot unmarshal array into Go struct field ChatRequest.options", 500, {}, None),
        ("tool 'x' not found", 400, {}, None),
        ("tool 'x' not found", 500, {"tools": False}, None),
        ("token repeat limit reached", 503, {}, None),
        ("grammar is not supported", 422, {}, "rejected"),
        ("Tool error: No function called", 422, {}, "broken_call"),
        ("token repeat limit reached", 200, {"began": True}, "truncated"),
        ("invalid format", 200, {"began": True}, None),
        ("invalid format", 400, {"format": False}, None),
        ("no tools", 400, {"tools": False}, None),
    ],
)
def test_status_and_what_was_asked_count_too(message: str, status: int, asked: dict[str, Any], kind: str) -> None:
    assert model_error(message, status, **{**ASKED, **asked}) == kind


@pytest.mark.parametrize(
    ("model", "message", "kind"),
    [
        ("json-tools:1b", "registry.ollama.ai/library/json-tools:1b does not support thinking", None),
        ("json-tools", "json-tools does not support thinking", None),
        ("hf.co/me/schema-7b:Q4", "hf.co/me/schema-7b:Q4 is broken", None),
        ("tools", "registry.ollama.ai/library/tools:latest is broken", None),
        ("tools", "registry.ollama.ai/library/tools:latest does not support tools", "rejected"),
        ("m", "invalid format: it is no schema", "rejected"),
    ],
)
def test_a_model_s_name_decides_nothing(model: str, message: str, kind: str | None) -> None:
    assert model_error(message, 400, **{**ASKED, "model": model}) == kind


@given(st.text(alphabet=st.characters(exclude_characters="'"), max_size=40))
def test_no_quoted_text_decides(quoted: str) -> None:
    tools, hammers = (f"went wrong: raw='{quoted} {word}', err=lost" for word in ("best tools", "best hammers"))
    assert model_error(tools, 500, **ASKED) is model_error(hammers, 500, **ASKED) is None


def test_quotes_within_a_quote_and_apostrophes_do_not_end_it() -> None:
    assert own_words("raw='{\"a\": 'tools'}', err=format") == "…format"
    assert own_words("it can't be the tools' fault").split() == ["it", "can't", "be", "the", "tools'", "fault"]


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ('{"name":' + "\n" * 31, True),
        ('{"name":' + "\n" * 30, False),
        ("Once " + "ha " * 31, True),
        ("Once " + "<unused49>" * 31, True),
        ("\U0001f60a" * 31, True),
        ("." * 30, False),
        ("a leader" + "." * 30, False),
        ("a leader" + "." * 31, True),
        ("a sentence that just stops", False),
        ("", False),
    ],
)
def test_a_text_that_ends_in_one_token_over_and_over_loops(text: str, looping: bool) -> None:
    assert loops(text) is looping
