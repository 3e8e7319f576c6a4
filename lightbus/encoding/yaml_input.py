"""Parses YAML, and refuses duplicate keys and aliases that expand without bound."""

from __future__ import annotations

from typing import Any

import yaml

from lightbus.exceptions import ConfigError

# A few lines of nested aliases can expand to more values than fit into memory.
_MAX_VALUES = 100_000

_MERGE_TAG = "tag:yaml.org,2002:merge"
_VALUE_TAG = "tag:yaml.org,2002:value"


def parse_yaml(text: str, source: str) -> Any:
    """Parse the only document in `text`.

    Args:
        text: YAML.
        source: The name of the document, for error messages.

    Raises:
        ConfigError: A key is a duplicate, an anchor contains itself, or aliases expand to too
            many values. The error states the path and the line.
        yaml.YAMLError: `text` is not valid YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Checker(loader, source).count(node, "$")
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Checker:
    """Refuses duplicate keys and too many aliases in the nodes of a YAML document."""

    def __init__(self, loader: yaml.SafeLoader, source: str) -> None:
        self._loader = loader
        self._source = source
        self._counts: dict[int, int | None] = {}

    def count(self, node: yaml.Node, path: str) -> int:
        """Return the number of values in `node`.

        A value is counted again for each alias that refers to it.
        """
        if id(node) in self._counts:
            count = self._counts[id(node)]
            if count is None:
                raise self._error("it contains itself", node, path)
            return count
        self._counts[id(node)] = None
        total = 1
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                total += self.count(item, f"{path}[{index}]")
        elif isinstance(node, yaml.MappingNode):
            total += self._count_mapping(node, path)
        if total > _MAX_VALUES:
            raise self._error(f"it has more than {_MAX_VALUES:,} values", node, path)
        self._counts[id(node)] = total
        return total

    def _count_mapping(self, node: yaml.MappingNode, path: str) -> int:
        total = 0
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            total += self.count(key_node, path)
            total += self.count(value_node, f"{path}.{key_node.value}")
            # The loader itself reports other keys, which are not hashable.
            if isinstance(key_node, yaml.ScalarNode):
                key, line = self._key(key_node), key_node.start_mark.line + 1
                if key in lines:
                    raise ConfigError(
                        f"the key {key_node.value!r} is a duplicate (lines {lines[key]} and "
                        f"{line}).",
                        source=self._source,
                        path=path,
                    )
                lines[key] = line
        return total

    def _key(self, node: yaml.ScalarNode) -> Any:
        if node.tag in (_MERGE_TAG, _VALUE_TAG):
            return node.value
        return self._loader.construct_object(node)

    def _error(self, problem: str, node: yaml.Node, path: str) -> ConfigError:
        line = node.start_mark.line + 1
        return ConfigError(f"{problem} (line {line}).", source=self._source, path=path)
