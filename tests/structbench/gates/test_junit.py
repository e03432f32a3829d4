"""The JUnit file is one that readers of such files accept, whatever happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import pytest
import xmlschema

from structbench.gates.junit import junit_xml
from structbench.gates.slo import CellResult, Gate

# What Apache Ant's JUnit report demands, written anew: order of the parts, attributes and their types.
SCHEMA = xmlschema.XMLSchema(
    """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:simpleType name="instant"><xs:restriction base="xs:dateTime">
    <xs:pattern value="[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="name"><xs:restriction base="xs:token"><xs:minLength value="1"/></xs:restriction></xs:simpleType>
  <xs:complexType name="wrong"><xs:simpleContent><xs:extension base="xs:string">
    <xs:attribute name="message" type="xs:string"/><xs:attribute name="type" type="xs:string" use="required"/>
  </xs:extension></xs:simpleContent></xs:complexType>
  <xs:element name="testsuites"><xs:complexType><xs:sequence>
    <xs:element name="testsuite" minOccurs="0" maxOccurs="unbounded"><xs:complexType><xs:sequence>
      <xs:element name="properties"><xs:complexType><xs:sequence>
        <xs:element name="property" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
          <xs:attribute name="name" type="name" use="required"/>
          <xs:attribute name="value" type="xs:string" use="required"/></xs:complexType></xs:element>
      </xs:sequence></xs:complexType></xs:element>
      <xs:element name="testcase" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
        <xs:choice minOccurs="0"><xs:element name="skipped"/><xs:element name="error" type="wrong"/>
          <xs:element name="failure" type="wrong"/></xs:choice>
        <xs:attribute name="name" type="xs:token" use="required"/>
        <xs:attribute name="classname" type="xs:token" use="required"/>
        <xs:attribute name="time" type="xs:decimal" use="required"/></xs:complexType></xs:element>
      <xs:element name="system-out" type="xs:string"/><xs:element name="system-err" type="xs:string"/>
    </xs:sequence>
      <xs:attribute name="name" type="name" use="required"/>
      <xs:attribute name="package" type="xs:token" use="required"/>
      <xs:attribute name="id" type="xs:int" use="required"/><xs:attribute name="hostname" type="name" use="required"/>
      <xs:attribute name="timestamp" type="instant" use="required"/>
      <xs:attribute name="tests" type="xs:int" use="required"/>
      <xs:attribute name="failures" type="xs:int" use="required"/>
      <xs:attribute name="errors" type="xs:int" use="required"/><xs:attribute name="skipped" type="xs:int"/>
      <xs:attribute name="time" type="xs:decimal" use="required"/></xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>
"""
)
RUN: dict[str, Any] = {
    "run_id": "r1", "config_hash": "s1:abc", "status": "complete", "verdict": "valid", "verdict_reason": None,
    "label": None, "duration_s": 1.23456, "started_at": datetime(2026, 1, 2, 3, 4, 5, 678),
}  # fmt: skip


def gate(outcome: Any, slo: str = "ttft_p95<0.5") -> Gate:
    return Gate("m json c=1", slo, outcome, 0.1, 30, "84 ms, n = 30 requests")


def written(*outcomes: CellResult, failures: tuple[str, ...] = ()) -> ElementTree.Element:
    text = junit_xml(outcomes, failures)
    SCHEMA.validate(text.encode())
    return ElementTree.fromstring(text.encode())


def test_each_cell_is_a_suite_and_each_slo_a_case() -> None:
    gates = [
        gate("met"),
        gate("not met", "correct>=0.9"),
        gate("not decided", "itl_p99<1"),
        gate("skip", "schema_valid>=1"),
    ]
    (suite,) = written(CellResult("m json c=1", RUN, gates))
    assert {name: suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped", "time")} == {
        "name": "m json c=1", "tests": "5", "failures": "1", "errors": "1", "skipped": "1", "time": "1.235",
    }  # fmt: skip
    assert suite.get("timestamp") == "2026-01-02T03:04:05"
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "run": [], "ttft_p95<0.5": [], "correct>=0.9": ["failure"], "itl_p99<1": ["error"],
        "schema_valid>=1": ["skipped"],
    }  # fmt: skip
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "84 ms, n = 30 requests"


@pytest.mark.parametrize(
    ("row", "failures", "said"),
    [
        (None, (), "the cell was not run"), ({**RUN, "status": "interrupted"}, (), "the run is interrupted"),
        ({**RUN, "verdict": "invalid", "verdict_reason": "late"}, (), "the run is invalid: late"),
        ({**RUN, "status": "interrupted"}, ("m json c=1: the server is gone",), "m json c=1: the server is gone"),
    ],
)  # fmt: skip
def test_a_cell_without_a_good_run_is_an_error(
    row: dict[str, Any] | None, failures: tuple[str, ...], said: str
) -> None:
    (suite,) = written(CellResult("m json c=1", row), failures=failures)
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    (error,) = suite.iter("error")
    assert error.get("message") == said


def test_two_cells_of_one_name_are_two_suites() -> None:
    """Two suite files of the same name in different folders."""
    suites = list(
        written(CellResult("m x.jsonl c=1", RUN, [gate("met")]), CellResult("m x.jsonl c=1", RUN, [gate("not met")]))
    )
    assert [(suite.get("id"), suite.get("failures")) for suite in suites] == [("0", "0"), ("1", "1")]


def test_names_from_outside_stay_text() -> None:
    evil = 'm"<&>\x00\x1b[31m]]>\ud800\ufffe ü\n'
    (suite,) = written(CellResult(evil, {**RUN, "label": evil, "verdict": "invalid", "verdict_reason": evil}, []))
    assert str(suite.get("name")).startswith('m"<&>')


def test_no_cell_is_an_empty_file() -> None:
    assert list(written()) == []
