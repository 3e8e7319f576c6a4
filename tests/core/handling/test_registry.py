"""Registries keep their order and report what is added."""

from __future__ import annotations

from lightbus.handling.registry import Registry


class Names(Registry[str]):
    def add(self, name: str) -> None:
        self._add(name)


def test_a_registry_has_its_items_in_the_order_in_which_they_were_added() -> None:
    names = Names()
    for name in ("b", "a", "c"):
        names.add(name)

    assert list(names) == ["b", "a", "c"]
    assert len(names) == 3
    assert "a" in names
    assert "d" not in names


def test_a_registry_may_change_while_it_is_iterated_over() -> None:
    names = Names()
    names.add("a")

    for name in names:
        names.add(f"after {name}")
    assert list(names) == ["a", "after a"]


def test_a_callback_receives_each_new_item_until_it_is_removed() -> None:
    names, added = Names(), list[str]()
    names.add("before")
    remove_callback = names.on_added(added.append)

    names.add("a")
    names.add("b")
    remove_callback()
    names.add("after")
    assert added == ["a", "b"]
