"""YAML as it is meant: a key that stands twice in a mapping is refused, not silently the last."""

from typing import Any

import yaml

from map2map.errors import RecipeError

__all__ = ["load_yaml"]


def load_yaml(text: str, name: object) -> Any:
    """What a text of YAML says.

    Args:
        text: The text.
        name: What it is called, for errors, such as a file's path.

    Raises:
        RecipeError: If it is not YAML, or a key stands twice in a mapping.
    """
    loader = yaml.SafeLoader(text)
    loader.name = str(name)
    try:
        # before mappings are merged (<<), which may override keys on purpose
        node = loader.get_single_node()
        _refuse_twice(node, str(name), set())
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def _refuse_twice(node: yaml.Node | None, name: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _refuse_twice(entry, name, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                first = lines[key.value]
                where = f"line {line}" if first == line else f"lines {first} and {line}"
                raise RecipeError(
                    f"{name}: the key {key.value} stands twice in one mapping ({where}); leave one "
                    f"of them out"
                )
            lines[key.value] = line
        _refuse_twice(value, name, seen)
