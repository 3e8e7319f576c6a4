"""Config files that say something twice, nothing, or far too much."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lightbus.config_file import read_config_file
from lightbus.exceptions import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGE_BOMB = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 10)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def problem_of(folder: Path, name: str, text: str) -> ConfigError:
    """Return the error that reading a file with `text` ends with."""
    (folder / name).write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_config_file(folder / name)
    return raised.value


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "$", "the key 'a' is a duplicate (lines 1 and 3)"),
        ("apis:\n  x:\n    - {q: 1, q: 2}\n", "$.apis.x[0]", "'q' is a duplicate (lines 3 and 3)"),
        ("on: 1\nyes: 2\n", "$", "the key 'yes' is a duplicate (lines 1 and 2)"),
        ("1: a\n0x1: b\n", "$", "the key '0x1' is a duplicate (lines 1 and 2)"),
        ("x:\n  <<: {q: 1, q: 2}\n", "$.x.<<", "'q' is a duplicate (lines 2 and 2)"),
        ("a: &a {}\nx:\n  <<: *a\n  <<: *a\n", "$.x", "'<<' is a duplicate (lines 3 and 4)"),
        ("? [{q: 1, q: 2}]\n: 1\n", "$[0]", "'q' is a duplicate (lines 1 and 1)"),
    ],
)
def test_a_duplicate_key_of_yaml_is_refused_with_its_path_and_lines(
    tmp_path: Path, text: str, path: str, problem: str
) -> None:
    error = problem_of(tmp_path, "lightbus.yaml", text)

    assert error.path == path
    assert problem in str(error)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a": 1, "a": 2}', "$"),
        ('{"apis": {"x": [1, {"a": {}, "b": 1, "a": {}}]}}', "$.apis.x[1]"),
    ],
)
def test_a_duplicate_key_of_json_is_refused_with_its_path(
    tmp_path: Path, text: str, path: str
) -> None:
    error = problem_of(tmp_path, "lightbus.json", text)

    assert error.path == path
    assert "the key 'a' is a duplicate" in str(error)


def test_a_duplicate_key_of_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in str(problem_of(tmp_path, "lightbus.toml", "a = 1\na = 2\n"))


def test_a_key_may_replace_one_that_is_merged(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "base: &base {a: 1, b: 2}\nother: &other {a: 3}\n"
        "one: {<<: *base, b: 4}\ntwo: {<<: [*base, *other]}\n"
    )

    data = read_config_file(tmp_path / "a.yaml")

    assert (data["one"], data["two"]) == ({"a": 1, "b": 4}, {"a": 1, "b": 2})


@pytest.mark.parametrize("text", [BOMB, MERGE_BOMB], ids=["lists", "merges"])
def test_aliases_that_stand_for_millions_of_values_are_refused_at_once(
    tmp_path: Path, text: str
) -> None:
    begin = time.monotonic()

    error = problem_of(tmp_path, "lightbus.yaml", text)

    assert time.monotonic() - begin < 5
    assert error.path.startswith("$.")
    assert "it has more than 100,000 values (line " in str(error)


def test_a_value_that_contains_itself_is_refused_with_its_place(tmp_path: Path) -> None:
    error = problem_of(tmp_path, "lightbus.yaml", "apis:\n  a: &a\n    - [*a]\n")

    assert error.path == "$.apis.a[0][0]"
    assert "it contains itself (line 2)" in str(error)


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_values_that_are_nested_too_deeply_are_refused(tmp_path: Path, ending: str) -> None:
    error = problem_of(tmp_path, f"a.{ending}", "[" * 100_000 + "]" * 100_000)

    assert "is nested too deeply" in str(error)


@pytest.mark.parametrize("value", ["${PATH_OF_IT}", "${PATH_OF_IT}${NAME_OF_IT}"])
def test_a_variable_that_leaves_a_setting_empty_is_refused_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("PATH_OF_IT", "")
    monkeypatch.setenv("NAME_OF_IT", "")

    error = problem_of(tmp_path, "lightbus.yaml", f"a: {{sqlite: {{path: ['{value}']}}}}")

    assert error.path == "$.a.sqlite.path[0]"
    assert "the environment variable 'PATH_OF_IT'" in str(error)
    assert "is empty" in str(error)


def test_a_variable_may_be_empty_within_a_longer_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUFFIX", "")
    (tmp_path / "a.json").write_text('{"service_name": "shop${SUFFIX}", "bus": ""}')

    assert read_config_file(tmp_path / "a.json") == {"service_name": "shop", "bus": ""}
