"""Whose failure an error is: the model's (``rejected``, ``broken_call``, ``truncated``), or not. Pure.

Only the server's own words decide. What it quotes (the model's text, a schema, a model's name) is left out first,
for it can hold any word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

Refused = Literal["format", "tools", "thinking"]
ModelError = Literal["rejected", "broken_call", "truncated"]

REPEATS = 30
"""How many equal tokens in a row Ollama's servers take for an endless loop; later versions allow 100."""
_LONGEST_UNIT = 100
"""The longest text, in characters, that counts as one repeated token."""
_STATUSES = (200, 400, 422, 500)

_FIELD = re.compile(
    r"(?:tools|tool_?(?:choice|config)|functions|function_call|format|response_?(?:format|schema|json_?schema|mime_?type)"
    r"|json(?:_?schema|_object)?|structured_outputs?|guided_\w+|grammar|schema|output_(?:format|config)|text\.format|think"
    r"|thinking|reasoning(?:_effort)?)(?:[.\[][\w.\[\]]*)?",
    re.IGNORECASE,
)
"""Fields of requests, which are the server's own words also where it quotes them."""
_BARE = (
    r"(?:^|[:;,(]\s*|\b(?:invalid|unsupported|unknown|unrecogni[sz]ed|unexpected|bad|wrong|illegal|malformed|in|for"
    r"|your|the|this|that|an?|no|with|provided|given|requested|specified|supplied|and|or|field|parameter|argument|option"
    r"|tool|function)\s+)(?:format|schema)s?\b(?!\s+(?:version|migration|mismatch|string|specifier|file|of|for|registry"
    r"|service|server|store)\b)"
)
"""A format or schema that isn't one of something else, as of a file, a time or a database."""
_ABOUT: Mapping[Refused, re.Pattern[str]] = {
    "format": re.compile(
        r"\b(?:response|output)_?(?:format|schema|config|json_?schema|mime_?type)"
        r"|\bjson[ _-]?(?:schema|mode|object|output|grammar)s?\b"
        r"|\bsupport\w* (?:\w+ ){0,3}response formats?\b|\bresponse formats?\b(?=.{0,40}\b(?:un)?support)"
        r"|\bstructured[ _-](?:output|decoding)s?\b"
        rf"|\b(?:guided|constrained)[ _-]\w+|\bunimplemented keys?\b|\bgrammars?\b|{_BARE}",
        re.IGNORECASE,
    ),
    "tools": re.compile(
        r"(?<![a-z])tools(?![a-z])(?!\s+(?:tier|service|server|backend|plugin|cache|quota|endpoint|process|worker)\b)"
        r"|(?<![a-z])(?:tool|function)[ _-](?:calling|use|choice|schema|definition)s?(?![a-z])"
        r"|\bschema for (?:function|tool)\b|\binput_schema\b",
        re.IGNORECASE,
    ),
    "thinking": re.compile(r"(?<![a-z])(think|thinking|reasoning)(?![a-z])", re.IGNORECASE),
}
_NO = re.compile(
    r"\bnot\b|n't\b|\bcannot\b|\bno\b|\bun(?:support|know|recogni|avail|implement|able|permit)\w*"
    r"|\b(?:invalid|illegal|malformed|bad|wrong|incompatible|disabled|forbidden|rejected|refused|missing|denied)\b"
    r"|\bunexpected (?:field|keyword|argument|parameter|key|property)\b|\b(?:is|are) off\b"
    r"|\bshould (?:be|have|match)\b|\bwithout\b"
    r"|\berror (?:compil|pars|convert|process)ing (?:\w+ ){0,2}(?:grammar|schema)\b"
    r"|\b(?:must|requires?|required|expected|only|exceeds?)\b|\btoo (?:large|complex|many|deep|long)\b"
    r"|\bfail(?:ed|ure|s)? (?:to |in )?(?:pars|compil|convert|process|load|initiali|creat|build|translat|apply)\w*"
    r"|\b(?:grammar|schema)(?: \w+)? (?:error|failed|failure)\b",
    re.IGNORECASE,
)
"""Words of which one must stand in the sentence that is to be a refusal."""
_ABOUT_ELSE = re.compile(
    r"context (length|window|size)|grammar stacks?\b|(out of|system|available|gpu|cuda) memory"
    r"|(?:cannot|can't|could not|couldn't|unable to|failed to) (?:open|find(?! field)|read|locate|resolve|connect"
    r"|reach|start)\b"
    r"|(load|loading|open|opening|read|reading) (the )?(model|weights|gguf)\b(?! vocabulary)|unsupported model\b",
    re.IGNORECASE,
)
"""Marks errors of another kind: a model that does not load, a prompt too long, memory."""
_OF_A_FILE = re.compile(
    r"\b(?:gguf|ggml|safetensors|tokeni[sz]\w*|lora|adapters?|tensors?|dtypes?|quanti[sz]ation|weights?|manifest|database"
    r"|migrations?|checkpoints?|files?|images?|audio|video|devices?|template"
    r"|api key|access token|auth\w*)\b",
    re.IGNORECASE,
)
"""What else has a format or a schema."""
_CRASH = re.compile(
    r"\bhas terminated\b|\bterminated (?:unexpectedly|abnormally)|\bcrashed\b"
    r"|\bSIG(?:SEGV|ABRT|KILL|TERM|BUS|ILL|FPE)\b"
    r"|\bGGML_ASSERT\b|\bassertion\b|\bpanic(?:ked)?\b|\bsegmentation fault\b|\bcore dumped\b|\bexit (?:status|code)\b"
    r"|\b(?:CUDA|ROCm|HIP|Metal|Vulkan) error\b|\brate[ _-]?limit|\btoo many requests\b|\bquota\b|\boverloaded\b",
    re.IGNORECASE,
)
"""Says that the server crashed or is full, whatever else it says."""
_REPEATED = re.compile(
    r"\b(?:repeat\w*|repetition)\b.{0,20}\b(limit|loop)\b.{0,20}\b(reached|exceeded|detected)\b|\btoken loop detected\b"
    r"|\b(endless|infinite) (loop|repetition)\b|\brepetition detected\b",
    re.IGNORECASE,
)
_CALL = r"(?:tool|function)[ _-]?calls?\b"
_BROKEN_CALL = re.compile(
    rf"""(?:
      (?:an?\ )?(?:error|failed|failure|unable|could\ not|cannot)\b[^:]{{0,60}}\b{_CALL}
    | (?:(?:the\ )?model\ (?:produced|generated|returned|made)\b[^:]{{0,30}})?
      \b(?:malformed|invalid|incomplete|unpars\w+|unclosed|unterminated|broken|empty)\b[^:]{{0,30}}\b{_CALL}
    | [^:]{{0,40}}\b{_CALL}[^:]{{0,30}}\b(?:pars\w+|decod\w+)\b[^:]{{0,20}}\b(?:fail|error)
    | failed\ to\ (?:call|invoke)\ a\ function
    | failed\ to\ parse\ (?:input\ at\ pos\b|(?:the\ )?(?:model'?s?\ )?(?:output|response)\b)
    | the\ model\ (?:produced|generated|returned)\ (?:an?\ )?(?:output|text|response)
    | unexpected\ tokens?\ (?:\d+\ while\ expecting|remaining\ in\ message\ header)
    | failed\ to\ (?:generate|validate)\ json\b
    | (?:the\ )?generated\ json\ does\ not\ match
    | json\ mode\ could\ ?n[o']t\ be\ met
    | {_CALL}\ validation\ failed
    | parameters\ for\ tool\ .{{0,80}}\ did\ not\ match
    | attempted\ to\ call\ tool\b
    | tool\ choice\ is\ \w+,\ but\ (?:the\ )?model\ (?:did\ not\ call|called)\b
    | model\ output\ must\ contain
    | tool\ error:\ (?:no\ function\ called|failed\ to\ parse)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Begins the messages of Ollama, llama.cpp, vLLM (Harmony), LM Studio, Groq and TGI about a call, or an answer in
JSON, that the model got wrong."""
_BARE_PARSER = re.compile(
    r"XML syntax error|invalid character .{1,12} (?:looking|after|in)|unexpected end of JSON input"
    r"|json: cannot unmarshal\b(?!.*Request\.)|expected element type\b"
    r"|failed to parse (?:json|xml|arguments|value|function)\b"
    r"|(?:empty|missing) (?:function|tool(?: call)?) name\b|tool (?:'[^']*'|\"[^\"]*\"|\S+) not found\b"
    r"|unknown (?:tool|function)(?::| ['\"`])|unexpected (?:token|end|non-whitespace)\b.{0,40} JSON\b"
    r"|(?:trailing characters|EOF while parsing|expected|key must be a string|invalid escape|control character)\b"
    r".{0,60} at line \d+ column \d+"
    r"|invalid (?:argument(?: format)?|object entry):|\[json\.exception\.parse_error\.\d+\]"
    r"|(?:Expecting (?:value|'[,:]' delimiter|property name)|Unterminated string starting at|Extra data"
    r"|Invalid (?:control character|\\\\?escape)).{0,60}: line \d+ column \d+",
    re.IGNORECASE,
)
"""Begins what a parser says that a server passes on bare; at status 400 it is about our request."""
_OF_HISTORY = re.compile(r"failed to parse tool call arguments as JSON", re.IGNORECASE)
"""What llama.cpp says of a call in the request's own messages."""

_QUOTES = re.compile(
    r"raw='.*?(?:', err=|\Z)"  # Ollama's quote of a call, which may hold any quotes itself
    r"|(?<=input at pos )\d+:.*"  # llama.cpp's, without any
    r'|"(?:[^"\\]|\\.)*(?:"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)|‘[^’]*(?:’|\Z)|«[^»]*(?:»|\Z)'
    r"|(?<!\w)'(?:[^'\\]|\\.|'(?=\w))*(?:'|\Z)|\{.*\}|\[[^\]]*\]|</?[\w|][^<>]{0,80}>",
    re.DOTALL,
)
_QUOTED = "…"
_OUTER = re.compile(r"(?:(?:[\w.]*(?:Error|Exception)|Error code: \d+)\s*[:-]\s*)+", re.IGNORECASE)
"""What gateways put before the message of the server behind them."""


def model_error(
    message: str, status: int | None, *, model: str, format: bool, tools: bool, began: bool, replayed: bool = False
) -> ModelError | None:
    """Return which failure of the model an error of the server reports, or None if it reports none.

    ``format`` and ``tools``: whether the request has a schema, tools; ``began``: whether an answer had begun;
    ``replayed``: whether its messages hold calls made earlier.
    """
    if status not in _STATUSES:
        return None
    said = _unwrapped(message)
    own = own_words(said, model)
    if _CRASH.search(own):
        return None
    if _BROKEN_CALL.match(said) and not (replayed and _OF_HISTORY.match(said)):
        return "broken_call"
    if status not in (400, 422) and tools and _BARE_PARSER.match(said):
        return "broken_call"
    if _REPEATED.search(own):
        return "truncated"
    refused = frozenset() if began else _refused(own)
    return "rejected" if ("format" in refused and format) or ("tools" in refused and tools) else None


def refusal(message: str, model: str = "") -> frozenset[Refused]:
    """Return what the server refuses by the text of its error; nothing for an error of another kind."""
    said = _unwrapped(message)
    own = own_words(said, model)
    return frozenset() if _CRASH.search(own) or _BROKEN_CALL.match(said) else _refused(own)


def _refused(own: str) -> frozenset[Refused]:
    if _ABOUT_ELSE.search(own):
        return frozenset()
    sentences = [sentence.strip() for sentence in re.split(r"[.;!?]\s+|\n", own) if _NO.search(sentence)]
    return frozenset(what for what, words in _ABOUT.items() if any(_is_about(words, each) for each in sentences))


def _is_about(words: re.Pattern[str], sentence: str) -> bool:
    found = [each[0] for each in words.finditer(sentence)]
    bare = [each for each in found if re.fullmatch(_BARE, each, re.IGNORECASE)]
    return len(found) > len(bare) or (bool(bare) and not _OF_A_FILE.search(sentence))


def own_words(message: str, model: str = "") -> str:
    """Return the message with a dot for each quote: texts in quotes, JSON, and the model's name in any form."""
    text = _QUOTES.sub(_kept, message)
    name = model.rpartition("/")[2].partition(":")[0]
    if not name:
        return text
    before, tag = r"(?<![\w./:-])(?:[\w.:-]+/)", r":[\w.-]+(?![\w-])"
    forms = [f"{before}+{re.escape(name)}(?:{tag})?", f"{before}*{re.escape(name)}{tag}"]
    if not any(words.fullmatch(name) for words in _ABOUT.values()):  # the bare word may be the server's own
        forms.append(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    return re.sub("|".join(forms), _QUOTED, text, flags=re.IGNORECASE)


def _kept(quote: re.Match[str]) -> str:
    """Return what is to stand for a quote: the names of fields that are all it says, else only a sign of it."""
    if quote[0][0] not in "\"'`“‘«[":
        return _QUOTED
    names = quote[0].strip("\"'`“”‘’«»[]").split(",")
    bare = [name.strip().strip("\"'") for name in names]
    return f" field {' '.join(bare)} " if all(_FIELD.fullmatch(name) for name in bare) else _QUOTED


def loops(text: str) -> bool:
    """Return whether a text ends in one token over and over, as when a server's repeat guard ends it."""
    if len(text) - len(text.rstrip()) > REPEATS:
        return True
    solid = "".join(text.split())
    return any(
        solid.endswith(solid[-size:] * (REPEATS + 1))
        for size in range(1, min(_LONGEST_UNIT, len(solid) // (REPEATS + 1)) + 1)
    )


def _unwrapped(message: str) -> str:
    """Return the text within what gateways (and old Ollamas) put around an error: names of exceptions, objects."""
    text = message.strip()
    if (outer := _OUTER.match(text)) is not None:
        return _unwrapped(text[outer.end() :])
    if text.startswith("[{") and text.endswith("}]"):  # Gemini's list of one
        text = text[1:-1]
    if not text.startswith("{"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # cut off by us, or not JSON at all
        cut = re.match(
            r"""\{(?:.*?["'](?:message|error)["']\s*:)?[\s{]*(?:["']message["']\s*:\s*)?["']""", text, re.DOTALL
        )
        return text if cut is None else _unwrapped(text[cut.end() :].replace('\\"', '"'))
    inner = found.get("error", found.get("message", found.get("detail")))
    match inner:
        case None:
            return ": ".join(str(part) for item in list(found.items())[:1] for part in item)
        case str():
            return _unwrapped(inner)
        case [{"loc": [*place], "msg": str(told)}, *_]:  # of a field that a server of FastAPI does not know
            return f"{'.'.join(map(str, place))}: {told}"
    return _unwrapped(json.dumps(inner, ensure_ascii=False)) if isinstance(inner, dict) else str(inner)
