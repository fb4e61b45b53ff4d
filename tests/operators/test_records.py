"""Every operator has a record, and every attribute of text says what it may hold."""

from __future__ import annotations

import pytest
from onnx import AttributeProto, defs, helper
from operator_helpers import kind_of

from clinfer.graph import experimental, numpy_ops
from clinfer.graph.contrib import schema as contrib
from clinfer.graph.shape_rules import rules as shape_rules
from clinfer.graph.upgrade import UPGRADES
from clinfer.lowering.table import rules as lowerings
from clinfer.operators import table
from clinfer.passes.canonicalise import RULES
from clinfer.passes.expand import BY_DEFINITION

# Not ONNX's: `graph.experimental` says what they are, and makes operators of ONNX of them.
EXPERIMENTAL = {name for name, entry in experimental.OPERATORS.items() if entry.below is None}
TABLES = {
    "onnx": {kind_of(s) for s in defs.get_all_schemas_with_history() if s.since_version > 1},
    "the lowerings": set(lowerings()),
    "the shape rules": set(shape_rules()),
    "the canonical forms": {kind for rule in RULES for kind in rule.kinds},
    "the upgrades": set(UPGRADES) - EXPERIMENTAL,
    "the definitions": set(BY_DEFINITION),
    "the host steps": set(numpy_ops.TABLE),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_operator_is_without_a_record(name):
    own = {kind for kind in TABLES[name] if kind.startswith("clinfer.")}
    assert TABLES[name] - own - table().keys() == set()


def test_every_attribute_of_text_says_what_it_may_hold():
    missing = []
    for schema in defs.get_all_schemas_with_history():
        values = table()[kind_of(schema)].values if kind_of(schema) in table() else {}
        for name, attribute in schema.attributes.items():
            if "STRING" in attribute.type.name and name not in values:
                missing.append(f"{kind_of(schema)}.{name}")
    assert missing == []


def test_what_onnx_has_by_default_is_allowed():
    for schema in defs.get_all_schemas():
        values = table()[kind_of(schema)].values
        for name, attribute in schema.attributes.items():
            if name in values and attribute.default_value.type:
                content = helper.get_attribute_value(attribute.default_value)
                for item in content if isinstance(content, list) else [content]:
                    text = item.decode() if isinstance(item, bytes) else item
                    assert values[name].holds(text), (kind_of(schema), name, text)


def test_records_name_attributes_that_there_are():
    known: dict[str, set[str]] = {}
    for schema in defs.get_all_schemas_with_history():
        known.setdefault(kind_of(schema), set()).update(schema.attributes)
    for kind, operator in experimental.OPERATORS.items():
        known.setdefault(kind, set()).update(operator.attributes)
    for name in contrib.names():
        known[f"{contrib.DOMAIN}.{name}"] = set(contrib.schema(name).attributes)
    every = set().union(*known.values())
    assert {n for record in table().values() for n in record.values} <= every
    assert table().keys() <= known.keys()


def test_experimental_operators_have_no_attribute_of_text():
    kinds = {
        kind for name in EXPERIMENTAL for kind in experimental.OPERATORS[name].attributes.values()
    }
    assert not kinds & {AttributeProto.STRING, AttributeProto.STRINGS}


def test_every_attribute_of_text_in_com_microsoft_says_what_it_may_hold():
    for name in contrib.names():
        for attribute, known in contrib.schema(name).attributes.items():
            if "STRING" in known.type.name:
                assert attribute in table()[f"{contrib.DOMAIN}.{name}"].values, (name, attribute)
